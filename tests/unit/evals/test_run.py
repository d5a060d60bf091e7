from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.core.errors import DigestMismatch, EspalierError, InvalidInput, NotFound
from espalier.core.events import Event
from espalier.core.types import Example, Generation, Message, SamplingSpec
from espalier.evals.cases import read_evaluation, write_evaluation
from espalier.evals.run import Subject, draw_examples, evaluate
from espalier.metrics.metric import Measurement, MetricSpec, Ratio, make_metric
from espalier.metrics.text import exact_match
from espalier.metrics.xml import xml_fields

SUBJECT = Subject("builtin:seedling", "base", "d" * 64)
Make = Callable[[int], list[Example]]


def test_a_report_holds_the_mean_its_interval_and_every_case_in_order(make_examples: Make, parrot: type) -> None:
    answers = parrot(lambda text: text.replace("q", "a") if text != "q3" else "wrong")
    found = evaluate(make_examples(10), answers, [exact_match()], SUBJECT, batch_size=4)
    score = found.report.score("exact_match")
    assert (score.value, score.n) == (0.9, 10)
    assert score.ci_low < 0.9 < score.ci_high < 1.0
    assert [case.id for case in found.cases] == [f"e{i:02d}" for i in range(10)]
    assert found.cases[3].values == {"exact_match": 0.0}
    assert found.cases[3].why == {"exact_match": "differs from the reference"}
    assert answers.batches == [4, 4, 2]


def test_progress_tells_how_far_how_long_and_how_well(make_examples: Make, parrot: type) -> None:
    events: list[Event] = []
    answers = parrot(lambda text: text.replace("q", "a") if int(text[1:]) < 4 else "?")
    evaluate(make_examples(6), answers, [exact_match()], SUBJECT, batch_size=4, emit=events.append)
    assert [event.kind for event in events] == ["eval.started", "eval.progress", "eval.progress", "eval.finished"]
    assert events[1].data["means"] == {"exact_match": 1.0}
    assert events[2].data["done"] == events[2].data["total"] == 6
    assert events[2].data["eta_ms"] == 0
    assert events[3].data["scores"]["exact_match"] == pytest.approx(4 / 6)
    low, high = events[3].data["intervals"]["exact_match"]
    assert low < 4 / 6 < high


def test_answers_survive_a_crash_and_are_not_asked_again(make_examples: Make, parrot: type, tmp_path: Path) -> None:
    journal = tmp_path / "answers.jsonl"
    right = parrot(lambda text: text.replace("q", "a"))

    def dies(batch: Sequence[Sequence[Message]], sampling: SamplingSpec) -> list[Generation]:
        if len(right.asked) >= 8:
            raise KeyboardInterrupt
        return right(batch, sampling)  # type: ignore[no-any-return]

    with pytest.raises(KeyboardInterrupt):
        evaluate(make_examples(12), dies, [exact_match()], SUBJECT, batch_size=4, journal=journal)
    with journal.open("ab") as stream:
        stream.write(b'{"key":"torn')  # what a killed process leaves
    again = parrot(lambda text: text.replace("q", "a"))
    resumed = evaluate(make_examples(12), again, [exact_match()], SUBJECT, batch_size=4, journal=journal)
    assert [messages[-1].content for messages in again.asked] == ["q8", "q9", "q10", "q11"]
    assert resumed == evaluate(make_examples(12), right, [exact_match()], SUBJECT)
    assert len([json.loads(line) for line in journal.read_text().splitlines()]) == 12


def test_a_journal_of_other_settings_is_not_used(make_examples: Make, parrot: type, tmp_path: Path) -> None:
    journal = tmp_path / "answers.jsonl"
    answers = parrot(lambda text: "x")
    evaluate(make_examples(3), answers, [exact_match()], SUBJECT, journal=journal)
    evaluate(make_examples(3), answers, [exact_match()], SUBJECT, journal=journal)
    assert len(answers.asked) == 3
    evaluate(make_examples(3), answers, [exact_match()], SUBJECT, journal=journal, sampling=SamplingSpec(max_tokens=9))
    other = Subject("builtin:other", "other", "d" * 64)
    evaluate(make_examples(3), answers, [exact_match()], other, journal=journal)
    assert len(answers.asked) == 9


def test_shots_are_shown_before_the_question_and_never_asked(make_examples: Make, parrot: type) -> None:
    rows = make_examples(5)
    answers = parrot(lambda text: "x")
    evaluate(rows[:2], answers, [exact_match()], SUBJECT, shots=rows[3:])
    assert [turn.content for turn in answers.asked[1]] == ["q3", "a3", "q4", "a4", "q1"]
    with pytest.raises(InvalidInput, match="e01 is both shown and asked"):
        evaluate(rows, answers, [exact_match()], SUBJECT, shots=rows[1:2])


def test_the_question_goes_through_the_render_it_is_given(make_examples: Make, parrot: type) -> None:
    answers = parrot(lambda text: "x")
    evaluate(
        make_examples(1), answers, [exact_match()], SUBJECT,
        render=lambda row, shots: [Message("user", f"{row.id}:{len(shots)}")],
    )  # fmt: skip
    assert answers.asked[0][0].content == "e00:0"


def test_cases_of_one_document_make_the_interval_wider(make_examples: Make, parrot: type) -> None:
    def width(documents: Callable[[int], list[str]]) -> float:
        rows = make_examples(40)
        for i, row in enumerate(rows):
            row.documents = documents(i)
        answers = parrot(lambda text: text.replace("q", "a") if int(text[1:]) % 8 < 4 else "?")
        score = evaluate(rows, answers, [exact_match()], SUBJECT).report.score("exact_match")
        return score.ci_high - score.ci_low

    assert width(lambda i: [f"d{i // 4}"]) > 1.4 * width(lambda i: [f"d{i}"])


def test_a_breakdown_becomes_scores_named_after_their_path(parrot: type) -> None:
    def row(i: int) -> Example:
        answer = f"<t><a>{i}</a><b>{i}</b></t>"
        return Example(id=str(i), messages=[Message("user", answer), Message("assistant", answer)])

    spoil = parrot(lambda text: text.replace("<b>", "<b>x"))
    report = evaluate([row(i) for i in range(8)], spoil, [xml_fields()], SUBJECT).report
    assert {score.name: score.value for score in report.scores} == {
        "xml_fields": 0.5, "xml_fields/t/a": 1.0, "xml_fields/t/b": 0.0,
    }  # fmt: skip


def test_the_same_evaluation_writes_the_same_bytes_and_reads_back(
    make_examples: Make, parrot: type, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        answers = parrot(lambda text: text.replace("q", "a") if text != "q1" else "ü|\n")
        write_evaluation(tmp_path / name, evaluate(make_examples(7), answers, [exact_match()], SUBJECT))
    for file in ("report.json", "cases.jsonl"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    read = read_evaluation(tmp_path / "one")
    assert read.report.score("exact_match").value == pytest.approx(6 / 7)
    assert read.cases[1].answer == "ü|\n"


def test_a_report_that_its_cases_do_not_bear_out_is_refused(make_examples: Make, parrot: type, tmp_path: Path) -> None:
    write_evaluation(tmp_path, evaluate(make_examples(4), parrot(lambda text: "?"), [exact_match()], SUBJECT))
    cases = tmp_path / "cases.jsonl"
    honest = cases.read_text("utf-8")
    cases.write_text(honest.replace('"exact_match":0.0', '"exact_match":1.0', 1), "utf-8")
    with pytest.raises(DigestMismatch, match="does not follow"):
        read_evaluation(tmp_path)
    cases.write_text(honest.split("\n")[0] + "\n", "utf-8")  # the mean holds, the number of cases does not
    with pytest.raises(DigestMismatch, match="does not follow"):
        read_evaluation(tmp_path)
    cases.write_text(honest.replace("{", "", 1), "utf-8")
    with pytest.raises(InvalidInput) as caught:
        read_evaluation(tmp_path)
    assert caught.value.where.endswith("cases.jsonl:1")
    cases.unlink()
    with pytest.raises(NotFound):
        read_evaluation(tmp_path)


def test_what_cannot_be_evaluated_is_refused_before_anything_is_asked(make_examples: Make, parrot: type) -> None:
    answers = parrot(lambda text: "x")
    rows = make_examples(2)
    no_answer = Example(id="e9", messages=[Message("user", "q")])
    for examples, metrics, said in (
        ([], [exact_match()], "no example"),
        (rows, [], "no metric"),
        ([*rows, rows[0]], [exact_match()], "same id"),
        ([*rows, no_answer], [exact_match()], "no reference answer"),
    ):
        with pytest.raises(InvalidInput, match=said):
            evaluate(examples, answers, metrics, SUBJECT)
    assert not answers.asked
    with pytest.raises(EspalierError, match="2 questions got 0 answers"):
        evaluate(rows, lambda batch, sampling: [], [exact_match()], SUBJECT)


@given(st.sets(st.integers(0, 99), min_size=1), st.integers(0, 30), st.integers(0, 3), st.randoms())
def test_a_draw_depends_on_ids_and_seed_only(ids: set[int], count: int, seed: int, chance: object) -> None:
    rows = [Example(id=f"e{i}") for i in sorted(ids)]
    drawn = draw_examples(rows, count, seed)
    assert len(drawn) == min(count, len(rows))
    shuffled = list(rows)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert {row.id for row in draw_examples(shuffled, count, seed)} == {row.id for row in drawn}
    assert [row.id for row in drawn] == [row.id for row in rows if row in drawn]


def test_seeds_draw_differently(make_examples: Make) -> None:
    assert len({tuple(row.id for row in draw_examples(make_examples(50), 5, seed)) for seed in range(8)}) == 8


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan"), float("inf")])
def test_a_ratio_that_is_none_is_the_metrics_fault(make_examples: Make, parrot: type, value: float) -> None:
    broken = Ratio("broken", lambda case: Measurement(value))
    with pytest.raises(EspalierError, match="metric broken gave") as caught:
        evaluate(make_examples(2), parrot(lambda text: "x"), [broken], SUBJECT)
    assert caught.value.where == "example e00"


@pytest.mark.parametrize("names", [("a", "a"), ("a/b",)])
def test_metrics_need_names_of_their_own(make_examples: Make, parrot: type, names: tuple[str, ...]) -> None:
    metrics = [Ratio(name, lambda case: Measurement(1.0)) for name in names]
    with pytest.raises(InvalidInput, match="names of their own"):
        evaluate(make_examples(2), parrot(lambda text: "x"), metrics, SUBJECT)


def test_metrics_are_found_by_name_with_checked_options() -> None:
    assert make_metric(MetricSpec(name="exact_match", options={"collapse_space": False})).name == "exact_match"
    with pytest.raises(NotFound, match="exact_mach") as caught:
        make_metric(MetricSpec(name="exact_mach"))
    assert "exact_match" in caught.value.hint
    with pytest.raises(InvalidInput, match="no option 'schem'") as wrong:
        make_metric(MetricSpec(name="xml_valid", options={"schem": "x"}))
    assert wrong.value.hint == "did you mean `schema`?"
    with pytest.raises(InvalidInput, match="needs the option 'schema'"):
        make_metric(MetricSpec(name="xml_valid"))
