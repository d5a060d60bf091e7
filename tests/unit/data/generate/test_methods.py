"""What becomes of a model's answers: rows that hold, and refusals that say why. No answer is ever invented."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from espalier.core.errors import InvalidInput
from espalier.core.types import Example, Message, SamplingSpec
from espalier.data.generate.asking import Asker
from espalier.data.generate.dataset import write_generated
from espalier.data.generate.generate import Seat, count_drops, generate_rows
from espalier.data.generate.row import Row, kept_examples
from espalier.data.generate.spec import GenerateSpec
from espalier.data.generate.templates import PromptVersion
from espalier.store.examples import read_examples, write_examples
from espalier.testing.scripted import Scripted, say

Make = Callable[..., Asker]
PASSAGE = "The Larkspur office opens at 09:00 and closes at 17:30 on working days.\nIt is shut in August, every year."
MODEL = {"endpoint": "http://127.0.0.1:1/v1", "model": "m"}


def spec(**fields: Any) -> GenerateSpec:
    return GenerateSpec.model_validate({"model": MODEL, **fields})


def passage(id: str, text: str = PASSAGE, **changes: Any) -> Example:
    return Example(id, text=text, documents=[f"doc-{id}"], tags={"group": f"g-{id}"}, **changes)


def asked(id: str, question: str, answer: str = "yes", **changes: Any) -> Example:
    return Example(id, messages=[Message("user", question), Message("assistant", answer)], **changes)


def pairs(*triples: tuple[str, str, str]) -> str:
    return json.dumps({"pairs": [dict(zip(("question", "answer", "quote"), each, strict=True)) for each in triples]})


def reasons(rows: list[Row]) -> list[str]:
    return [row.refused_because for row in rows]


@pytest.fixture
def run(make_asker: Make, shown: PromptVersion) -> Callable[..., list[Row]]:
    def generate(
        examples: list[Example], recipe: GenerateSpec, model: Scripted, judge: Scripted | None = None
    ) -> list[Row]:
        seat = Seat(make_asker(model), shown)
        return generate_rows(examples, recipe, seat, Seat(make_asker(judge), shown) if judge else None)

    return generate


def test_questions_stand_on_a_quotation_and_keep_split_documents_and_group(run: Callable[..., list[Row]]) -> None:
    good = ("When does the office open?", "At nine.", "opens at  09:00 and\ncloses")
    invented = ("Who leads the office?", "Ada.", "led by Ada")
    recipe = spec(method={"kind": "questions"}, splits=["test"])
    rows = run([passage("a", split="test"), passage("b")], recipe, Scripted(lambda _: pairs(good, invented)))
    assert reasons(rows) == ["", "not grounded: the passage does not say 'led by Ada'"]
    (example,) = kept_examples(rows)
    assert [turn.content for turn in example.messages] == ["When does the office open?", "At nine."]
    assert (example.split, example.documents, example.tags["group"]) == ("test", ["doc-a"], "g-a")


def test_every_kept_row_says_where_it_came_from(run: Callable[..., list[Row]]) -> None:
    recipe = spec(method={"kind": "questions"}, sampling={"max_tokens": 9, "seed": 4})
    answer = pairs(("When is it shut?", "In August.", "shut in August"))
    (row,) = run([passage("a")], recipe, Scripted(lambda _: answer))
    (example,) = kept_examples([row])
    assert {name: value for name, value in example.tags.items() if name.startswith("generate.")} == {
        "generate.method": "questions",
        "generate.parents": "a",
        "generate.prompt": "shown@v1",
        "generate.prompt_digest": row.origin.prompt.digest,
        "generate.model": "m at http://127.0.0.1:1/v1",
        "generate.sampling": '{"max_tokens":9,"seed":4,"stop":[],"temperature":0.0,"top_p":1.0}',
        "generate.answer": hashlib.sha256(answer.encode()).hexdigest(),
        "generate.verdict": "kept",
        "generate.quote": "shut in August",
    }
    assert row.to_json()["verdict"] == "kept"


def test_what_cannot_be_asked_or_read_is_refused_with_a_reason(run: Callable[..., list[Row]]) -> None:
    def script(text: str) -> Any:
        if "none" in text:
            return '{"pairs": []}'
        if "long answer" in text:
            return say("{", "length")
        return "Sorry" if "broken" in text or "cannot be read" in text else pairs(("Q?", "A", PASSAGE[:9]))

    texts = ["short", "x" * 20_000, f"none {PASSAGE}", f"long answer {PASSAGE}", f"broken {PASSAGE}", PASSAGE]
    rows = run(
        [passage(str(i), text) for i, text in enumerate(texts)], spec(method={"kind": "questions"}), Scripted(script)
    )
    assert reasons(rows) == [
        "passage too short: 5 characters",
        "passage too long: 20000 characters",
        "no question: the model found none",
        "cut off: the answer was longer than max_tokens",
        "not JSON: expected value at line 1 column 1",
        "",
    ]
    assert rows[4].origin.answer and not rows[4].origin.mended


def test_more_questions_than_asked_for_and_alike_ones_are_left_out(run: Callable[..., list[Row]]) -> None:
    quote = "closes at 17:30"
    answer = pairs(
        ("When does the Larkspur office close?", "17:30", quote),
        ("When does the Larkspur office close, please?", "17:30", quote),
        ("Is it open at noon?", "yes", quote),
        ("And a fourth one?", "yes", quote),
    )
    rows = run([passage("a")], spec(method={"kind": "questions"}), Scripted(lambda _: answer))
    assert [reason.split(":")[0] for reason in reasons(rows)] == ["", "near duplicate", "", "more than asked for"]


def test_a_paraphrase_keeps_the_answer_and_every_number(run: Callable[..., list[Row]]) -> None:
    texts = ["Where can I find invoice 4711?", "Where is invoice 4712?", "where is INVOICE 4711"]
    model = Scripted(lambda _: json.dumps({"paraphrases": texts}))
    recipe = spec(method={"kind": "paraphrase", "count": 3})
    system = asked("a", "Where is invoice 4711?", "In the drawer.", split="train")
    system.messages.insert(0, Message("system", "Be brief."))
    rows = run([system, passage("b")], recipe, model)
    assert [reason.split(" with")[0] for reason in reasons(rows)] == [
        "",
        "number lost: 4711",
        "near duplicate: ROUGE-L 1.00",
        "no question: no user turn stands before an answer",
    ]
    (example,) = kept_examples(rows)
    assert [turn.content for turn in example.messages] == ["Be brief.", texts[0], "In the drawer."]


def tasks_of(text: str) -> list[dict[str, Any]]:
    """The seed tasks a request shows."""
    shown = text.split("tasks=", 1)[1]
    return [json.loads(line) for line in shown.splitlines()]


def test_instructions_grow_from_seeds_and_from_themselves(run: Callable[..., list[Row]]) -> None:
    kinds = itertools.product(("sort", "count", "name"), ("these", "those", "some"), ("rivers", "verbs", "towns"))
    words = (" ".join(kind) for kind in kinds)

    def script(_: str) -> str:
        fresh = [f"{next(words)} {chr(97 + i) * 3}" for i in range(2)]
        return json.dumps({"tasks": [{"instruction": text, "output": "done"} for text in fresh]})

    recipe = spec(
        method={"kind": "instruct", "count": 6, "shots": 2, "grown_shots": 1, "per_request": 2, "round_requests": 1}
    )
    seeds = [asked(f"s{i}", f"Seed {word} number") for i, word in enumerate(("alpha", "beta", "gamma"))]
    model = Scripted(script)
    rows = run(seeds, recipe, model)
    kept = kept_examples(rows)
    assert len(kept) == 6
    assert [len(tasks_of(text)) for text in model.asked][:2] == [2, 3]  # then a made one is shown with the seeds
    grown = [[parent for parent in row.origin.parents if parent.startswith("i-")] for row in rows]
    assert not grown[0] and all(len(each) == 1 for each in grown[2:])
    assert all(example.split == "train" and not example.documents for example in kept)


def test_instructions_that_repeat_or_cannot_be_done_are_left_out(run: Callable[..., list[Row]]) -> None:
    texts = ["Seed alpha number", "Draw a picture of a cat", "Go", "List three rivers of France", "one more task here"]
    answer = json.dumps({"tasks": [{"instruction": text, "input": "x", "output": "done"} for text in texts]})
    recipe = spec(method={"kind": "instruct", "count": 50, "round_requests": 1, "max_rounds": 1})
    rows = run([asked("s", "Seed alpha number")], recipe, Scripted(lambda _: answer))
    assert [reason.split(":")[0] for reason in reasons(rows)] == [
        "near duplicate",
        "not for a text model",
        "too short",
        "",
        "more than asked for",
    ]
    (example,) = kept_examples(rows)
    assert example.messages[0].content == "List three rivers of France\n\nx"


def test_seed_tasks_without_a_question_and_an_answer_are_an_error(run: Callable[..., list[Row]]) -> None:
    with pytest.raises(InvalidInput, match="no seed task"):
        run([passage("a")], spec(method={"kind": "instruct"}), Scripted(lambda _: ""))


def judge_by(scores: dict[str, str]) -> Scripted:
    return Scripted(lambda text: next(answer for word, answer in scores.items() if word in text))


def test_a_judge_leaves_out_what_is_below_its_threshold(run: Callable[..., list[Row]]) -> None:
    judge = judge_by(
        {
            "good": '{"score": 4, "reason": "sound"}',
            "poor": '{"score": 2, "reason": "vague"}',
            "odd": '{"score": 9, "reason": "?"}',
            "cannot be read": '{"score": 9, "reason": "?"}',
        }
    )
    recipe = spec(method={"kind": "critique"}, judge={"rubric": "be clear", "threshold": 4})
    made = {"generate.method": "questions", "generate.parents": "p"}
    examples = [asked(word, f"{word} question", tags=made) for word in ("good", "poor", "odd")]
    rows = run(examples, recipe, Scripted(str), judge)
    assert reasons(rows) == ["", "judged below 4: 2 of 5, vague", "no verdict: score 9 is above 5"]
    (example,) = kept_examples(rows)
    assert example.id == "good"
    assert (example.tags["judge.score"], example.tags["judge.reason"]) == ("4", "sound")
    assert {name: example.tags[name] for name in made} == made  # how it was made is not forgotten
    assert "rubric=be clear" in judge.asked[0]


def test_what_a_critique_does_not_judge_stays_in_its_place(run: Callable[..., list[Row]], tmp_path: Path) -> None:
    examples = [asked(f"{word}-{split}", f"{word} question", split=split) for word in ("good", "poor")
                for split in ("train", "test")]  # fmt: skip
    write_examples(tmp_path / "in" / "data" / "train-00000.parquet", examples)
    judge = judge_by({"good": '{"score": 5, "reason": "ok"}', "poor": '{"score": 1, "reason": "no"}'})
    recipe = spec(method={"kind": "critique"}, judge={"rubric": "r"})
    rows = run(examples, recipe, Scripted(str), judge)
    write_generated(tmp_path / "out", (tmp_path / "in", "f" * 64), examples, rows, {}, recipe)
    assert [each.id for each in read_examples(tmp_path / "out")] == ["good-train", "good-test", "poor-test"]
    assert [each.tags.get("judge.score") for each in read_examples(tmp_path / "out")] == ["5", None, None]


def test_a_judge_of_questions_sees_their_passage(run: Callable[..., list[Row]]) -> None:
    judge = judge_by({"": '{"score": 5, "reason": "ok"}'})
    recipe = spec(method={"kind": "questions"}, judge={"rubric": "r"})
    run([passage("a")], recipe, Scripted(lambda _: pairs(("When?", "In August.", "shut in August"))), judge)
    assert f"source={PASSAGE}" in judge.asked[0]


@pytest.mark.parametrize("late", [1, 2, 3])
def test_rows_are_the_same_in_whatever_order_answers_come(run: Callable[..., list[Row]], late: int) -> None:
    def script(text: str) -> str:
        number = str(int(text.split("Room ")[1].split(" ")[0]) % 9)
        return pairs((f"What is in room {number} of the house?", number, "Room"))

    examples = [passage(str(i), f"Room {i} {PASSAGE}") for i in range(12)]
    recipe = spec(method={"kind": "questions"})
    calm = [row.to_json() for row in run(examples, recipe, Scripted(script))]
    assert [row.to_json() for row in run(examples, recipe, Scripted(script, late=late))] == calm
    assert count_drops(run(examples, recipe, Scripted(script))) == {"asked before": 3}


def test_nothing_kept_is_an_error_that_says_why(run: Callable[..., list[Row]]) -> None:
    with pytest.raises(InvalidInput, match="no row was kept: 2 not JSON") as refusal:
        run([passage("a"), passage("b", PASSAGE + "!")], spec(method={"kind": "questions"}), Scripted(lambda _: "no"))
    assert refusal.value.hint.startswith("the first: not JSON: ")
    with pytest.raises(InvalidInput, match="no example in test"):
        run([passage("a")], spec(method={"kind": "questions"}, splits=["test"]), Scripted(str))


def test_a_limit_draws_the_same_rows_in_any_order(run: Callable[..., list[Row]]) -> None:
    recipe = spec(method={"kind": "paraphrase"}, limit=3, keep_input=True)
    examples = [asked(f"e{i}", f"question {i}") for i in range(10)]
    drawn = [row.origin.parents for row in run(examples, recipe, Scripted(lambda _: "-"))]
    assert len(drawn) == 3
    turned = [row.origin.parents for row in run(examples[::-1], recipe, Scripted(lambda _: "-"))]
    assert sorted(turned) == sorted(drawn)


def test_a_sampling_of_its_own_is_passed_on(make_asker: Make, shown: PromptVersion) -> None:
    seen: list[SamplingSpec] = []

    def generate(batch: Any, sampling: SamplingSpec) -> list[Any]:
        seen.append(sampling)
        return [say('{"paraphrases": ["In other words?"]}') for _ in batch]

    recipe = spec(method={"kind": "paraphrase"}, sampling={"temperature": 0.7, "seed": 3})
    generate_rows([asked("a", "Why is it so?")], recipe, Seat(make_asker(generate), shown))
    assert seen == [SamplingSpec(temperature=0.7, seed=3)]
