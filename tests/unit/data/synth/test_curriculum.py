from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from espalier.core.types import Example
from espalier.data.synth.curriculum import STAGES, CurriculumSpec, generate_curriculum
from espalier.data.synth.tickets.spec import CATALOGUE, INSTRUCTION, NAMESPACE


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return list(generate_curriculum(CurriculumSpec(seed=7, examples=6000)))


def question(example: Example) -> str:
    return example.messages[-2].content


def reply(example: Example) -> str:
    return example.messages[-1].content


def flat(text: str) -> str:
    return " ".join(text.split())


def test_the_same_seed_gives_the_same_examples_and_another_seed_others() -> None:
    def make(seed: int) -> list[Example]:
        return list(generate_curriculum(CurriculumSpec(seed=seed, examples=300)))

    assert make(1) == make(1)
    long = {question(one) for one in make(1) if len(question(one)) > 60}
    assert long.isdisjoint(question(one) for one in make(2))


def test_stages_follow_each_other_with_the_shares_asked_for() -> None:
    spec = CurriculumSpec(seed=1, examples=1000, shares=(0.1, 0.25, 0.65))
    stages = [one.tags["stage"] for one in generate_curriculum(spec)]
    assert stages == ["1"] * 100 + ["2"] * 250 + ["3"] * 650


def test_copying_leads_and_long_answers_come_last(examples: list[Example]) -> None:
    def share(stage: str, kinds: set[str]) -> float:
        tags = [one.tags["kind"] for one in examples if one.tags["stage"] == stage]
        return sum(kind in kinds for kind in tags) / len(tags)

    copying, filling = {"copy", "copy_long", "pick_item", "look_up"}, {"combine", "fill", "extract"}
    assert share("1", copying) > 0.6 > 0.1 > share("3", copying)
    assert share("3", filling) > 0.5 > 0.05 > share("1", filling)


def test_every_kind_of_the_mix_that_needs_no_corpus_turns_up(examples: list[Example]) -> None:
    wanted = {kind for mix in STAGES for kind in mix} - {"reading", "name_intent", "answer"}
    assert {one.tags["kind"] for one in examples} == wanted


def test_what_is_to_be_copied_stands_in_the_question(examples: list[Example]) -> None:
    pointing = [
        one
        for one in examples
        if one.tags["kind"] in {"copy", "copy_long", "pick_item", "look_up", "quote", "follow", "find"}
    ]
    assert len(pointing) > 1000
    assert [flat(reply(one)) for one in pointing if flat(reply(one)) not in flat(question(one))] == []


def test_long_rows_never_repeat(examples: list[Example]) -> None:
    long = [
        question(one) for one in examples if one.tags["kind"] in {"combine", "extract", "fill", "convert", "follow"}
    ]
    assert len(set(long)) == len(long)


def test_the_house_format_of_the_demo_is_in_no_example(examples: list[Example]) -> None:
    forbidden = (NAMESPACE, "dossier", "urn:larkspur", INSTRUCTION, *CATALOGUE)
    text = "\n".join(message.content for one in examples for message in one.messages)
    assert [word for word in forbidden if word in text] == []


def test_one_in_ten_has_a_system_turn(examples: list[Example]) -> None:
    roles = Counter(tuple(message.role for message in one.messages) for one in examples)
    assert set(roles) == {("user", "assistant"), ("system", "user", "assistant")}
    assert 0.07 < roles[("system", "user", "assistant")] / len(examples) < 0.13


def test_corpora_that_are_there_are_used_and_those_that_are_not_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "banking77").mkdir()
    (tmp_path / "banking77" / "train.csv").write_text(
        "text,category\nwhere is my card?,card_arrival\nno money,Refund_not_showing_up?\n"
    )
    (tmp_path / "gsm8k").mkdir()
    with gzip.open(tmp_path / "gsm8k" / "train.jsonl.gz", "wt") as lines:
        lines.write(json.dumps({"question": "One and two?", "answer": "1+2=<<1+2=3>>3.\n#### 3"}))
    made = list(generate_curriculum(CurriculumSpec(seed=1, examples=800), [tmp_path]))
    intents = [one for one in made if one.tags["kind"] == "name_intent"]
    answers = {reply(one) for one in made if one.tags["kind"] == "answer"}
    assert {flat(question(one)).find("where is my card?") >= 0 for one in intents} == {True, False}
    assert {"card arrival", "refund not showing up"} <= {reply(one) for one in intents}
    assert answers == {"1+2=3.\nAnswer: 3"}
    assert not [one for one in made if one.text]


def test_plain_english_comes_as_text_without_messages(tmp_path: Path) -> None:
    (tmp_path / "tinyshakespeare").mkdir()
    (tmp_path / "tinyshakespeare" / "input.txt").write_text("First Citizen:\nSpeak.\n\nAll:\nSpeak, speak.")
    made = list(generate_curriculum(CurriculumSpec(seed=1, examples=300), [tmp_path]))
    read = [one for one in made if one.tags["kind"] == "reading"]
    assert {one.text for one in read} == {"First Citizen:\nSpeak.\n\nAll:\nSpeak, speak."}
    assert not any(one.messages for one in read)


def test_a_curriculum_of_nothing_is_refused() -> None:
    with pytest.raises(ValidationError):
        CurriculumSpec(examples=0)
