"""Records are written once; what counts is what each annotator said last; disagreements wait for a last word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.core.errors import InvalidInput, NotFound
from espalier.data.annotation.queue import disagreement_of, queue_disagreements
from espalier.data.annotation.record import (
    AnnotationRecord,
    Labels,
    Preference,
    Rating,
    Repair,
    Spans,
    TextSpan,
    Value,
    append_records,
    find_news,
    keep_newest,
    make_record,
    read_records,
    stamp,
)
from espalier.data.annotation.report import measure_agreement


def rate(example: str, annotator: str, value: int, at_ms: int = 1, **fields: Any) -> AnnotationRecord:
    return make_record("d", example, "quality", Rating(value=value), annotator, at_ms=at_ms, **fields)


def label(example: str, annotator: str, *labels: str, at_ms: int = 1) -> AnnotationRecord:
    return make_record("d", example, "topic", Labels(labels=labels), annotator, at_ms=at_ms)


def test_a_file_of_records_is_read_back_and_only_grows(tmp_path: Path) -> None:
    path = tmp_path / "annotations.jsonl"
    records = [
        rate("a", "ada", 4, note="fine", lead_time_s=2.5, gold=True),
        label("a", "ada", "x", "y"),
        make_record("d", "a", "e", Spans(spans=(TextSpan(start=0, end=3, label="n", text="Ada"),)), "ada", at_ms=2),
        make_record("d", "p", "preference", Preference(better="tie"), "bob", at_ms=3),
        make_record("d", "a", "repair", Repair(text="Grüße\u2028!"), "rule-1", at_ms=4, by="rule", detail={"k": "v"}),
    ]
    assert append_records(path, records[:2]) == 2
    before = path.read_bytes()
    append_records(path, records[2:])
    assert path.read_bytes().startswith(before)
    assert read_records(path) == records
    assert len({record.id for record in records}) == 5


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "not JSON"),
        ('{"id": "x"}', "dataset: missing"),
        (
            '{"id": "x", "dataset": "d", "example": "e", "question": "q", "value": {"kind": "vote"}}',
            "value: there is no kind 'vote'",
        ),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "annotations.jsonl"
    append_records(path, [rate("a", "ada", 4)])
    with path.open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(InvalidInput, match=rf"annotations\.jsonl:2: not an annotation: .*{problem}"):
        read_records(path)
    with pytest.raises(NotFound):
        read_records(tmp_path / "other.jsonl")


def test_values_are_checked() -> None:
    for bad in (
        lambda: Rating(value=6, scale=5),
        lambda: Rating(value=0),
        lambda: Labels(labels=("b", "a")),
        lambda: Labels(labels=("a", "a")),
    ):
        with pytest.raises(ValueError, match=r"scale|greater|sorted"):
            bad()


def test_the_last_word_of_each_annotator_counts_whatever_the_order() -> None:
    records = [rate("a", "ada", 2, 1), rate("a", "ada", 5, 3), rate("a", "ada", 3, 2), rate("a", "bob", 1, 1)]
    newest = keep_newest(records)
    assert [(record.annotator, record.value) for record in newest] == [
        ("ada", Rating(value=5)),
        ("bob", Rating(value=1)),
    ]
    assert keep_newest(records[::-1]) == newest


def test_only_what_changes_a_word_is_news() -> None:
    known = [rate("a", "ada", 3, 1)]
    again, changed = rate("a", "ada", 3, 2), rate("a", "ada", 4, 2)
    assert find_news(known, [again]) == []
    assert find_news(known, [changed, stamp(changed, 9)]) == [changed]
    back = rate("a", "ada", 3, 5)  # a change of mind and back again is two words
    assert find_news([*known, changed], [back]) == [back]
    assert find_news([], known * 2) == known


VALUES = st.one_of(
    st.integers(1, 5).map(lambda value: Rating(value=value)),
    st.sets(st.sampled_from("ab")).map(lambda labels: Labels(labels=tuple(sorted(labels)))),
    st.sets(st.sampled_from([(0, 3), (4, 6)])).map(
        lambda spans: Spans(spans=tuple(TextSpan(start=a, end=b, label="x") for a, b in sorted(spans)))
    ),
)


@given(st.lists(VALUES, max_size=5))
def test_disagreement_is_from_0_to_1_and_0_when_all_say_the_same(values: list[Value]) -> None:
    found = disagreement_of(values)
    assert 0 <= found <= 1
    assert disagreement_of(values[::-1]) == pytest.approx(found)
    assert (found == 0) == (len({repr(value) for value in values}) <= 1)


def test_disagreements_queue_by_how_far_apart_and_leave_with_the_last_word() -> None:
    records = [
        rate("near", "ada", 3), rate("near", "bob", 4),
        rate("far", "ada", 1), rate("far", "bob", 5),
        rate("same", "ada", 2), rate("same", "bob", 2),
        rate("alone", "ada", 2),
        label("far", "ada", "x"), label("far", "bob", "x"), label("far", "cy", "y"),
    ]  # fmt: skip
    queue = queue_disagreements(records)
    assert [(each.example, each.question, each.disagreement) for each in queue] == [
        ("far", "quality", 1.0),
        ("far", "topic", pytest.approx(2 / 3)),
        ("near", "quality", 0.25),
    ]
    assert queue[0].said == {"ada": "1 of 5", "bob": "5 of 5"}
    settled = [*records, rate("far", "judge", 4, gold=True)]
    assert [each.question for each in queue_disagreements(settled)] == ["topic", "quality"]
    assert [each.example for each in queue_disagreements(records, least=0.7)] == ["far"]


def test_agreement_is_told_for_each_question_between_every_two() -> None:
    records = []
    for i in range(30):
        truth = i % 3 + 1
        records += [rate(str(i), "ada", truth), rate(str(i), "bob", truth), rate(str(i), "cy", 4 - truth)]
        if i < 20:
            records += [label(str(i), "ada", "xy"[i % 2]), label(str(i), "bob", "xy"[i % 2])]
    quality, topic = measure_agreement(records)
    assert (quality.question, quality.examples, quality.annotators) == ("quality", 30, {"ada": 30, "bob": 30, "cy": 30})
    pairs = {(each.first, each.second): each.figure for each in quality.pairs}
    assert pairs["ada", "bob"].value == pytest.approx(1)
    assert pairs["ada", "cy"].value == pytest.approx(-1)  # the quadratic weights see it turned upside down
    assert [figure.name for figure in quality.figures] == ["ordinal alpha", "Fleiss' kappa of 3"]
    assert topic.figures[0].value == pytest.approx(1)
    assert topic.pairs[0].equal.n == 20


def test_one_annotator_agrees_with_nobody() -> None:
    (found,) = measure_agreement([rate("a", "ada", 3), rate("b", "ada", 4)])
    assert (found.examples, found.figures, found.pairs) == (0, (), ())
    assert measure_agreement([]) == []
