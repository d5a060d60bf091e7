"""Several words become one by a rule, and one word changes, tags or leaves out a row."""

from __future__ import annotations

from typing import Any

import pytest

from espalier.core.types import Example, Message
from espalier.data.annotation.apply import ApplySpec, Rule, apply_annotations, settle
from espalier.data.annotation.record import (
    AnnotationRecord,
    Labels,
    Preference,
    Rating,
    Repair,
    Spans,
    TextSpan,
    Value,
    make_record,
)


def say(example: str, question: str, annotator: str, value: Value, **fields: Any) -> AnnotationRecord:
    return make_record("d", example, question, value, annotator, at_ms=fields.pop("at_ms", 1), **fields)


def spec(**fields: Any) -> ApplySpec:
    return ApplySpec.model_validate({"name": "new", **fields})


def chat(id: str, answer: str = "old") -> Example:
    return Example(id, [Message("user", "Why?"), Message("assistant", answer, 0.5)], split="test", tags={"group": id})


def ratings(*values: int, gold: int = 0) -> list[AnnotationRecord]:
    said = [say("a", "q", f"r{i}", Rating(value=value)) for i, value in enumerate(values)]
    return [*said, *([say("a", "q", "judge", Rating(value=gold), gold=True)] if gold else [])]


@pytest.mark.parametrize(
    ("rule", "values", "gold", "expected"),
    [
        ("majority", (1, 5, 4), 0, (4, 1)),
        ("majority", (1, 5), 0, (1, 1)),  # of an even number the lower middle one: nobody is taken at their best
        ("majority", (4, 4, 5, 1), 0, (4, 2)),
        ("gold", (1, 5), 0, (None, 0)),
        ("gold", (1, 5), 3, (3, 1)),
        ("adjudicated", (2, 2), 0, (2, 2)),
        ("adjudicated", (2, 3), 0, (None, 1)),
        ("adjudicated", (2, 3), 5, (5, 1)),
    ],
)
def test_ratings_are_settled(rule: Rule, values: tuple[int, ...], gold: int, expected: tuple[int | None, int]) -> None:
    found = settle(ratings(*values, gold=gold), rule)
    value = found.value.value if isinstance(found.value, Rating) else None
    assert (value, found.agreeing) == expected


def test_a_draw_of_labels_settles_nothing() -> None:
    said = [say("a", "t", str(i), Labels(labels=(label,))) for i, label in enumerate("xxyy")]
    assert settle(said, "majority").value is None
    assert settle(said[:3], "majority").value == Labels(labels=("x",))


def test_a_mended_answer_replaces_the_old_one_and_says_so() -> None:
    records = [say("a", "repair", "ada", Repair(text="new")), say("b", "repair", "ada", Repair(text="old"))]
    found = apply_annotations([chat("a"), chat("b"), Example("t", text="raw")], records, spec())
    assert [example.id for example in found.examples] == ["a", "b", "t"]
    mended, same, _ = found.examples
    assert mended.messages == [Message("user", "Why?"), Message("assistant", "new", 0.5)]
    assert mended.tags == {"group": "a", "annotations.repair": "1 of 1", "annotations.repaired": "yes"}
    assert (mended.split, same.messages[-1].content) == ("test", "old")
    assert "annotations.repaired" not in same.tags
    assert found.counts == {"repaired": 1}


def test_poor_and_wrong_rows_are_left_out_with_how_many_said_so() -> None:
    records = [
        *(say("a", "quality", who, Rating(value=value)) for who, value in (("x", 2), ("y", 2), ("z", 5))),
        say("b", "flag", "x", Labels(labels=("offensive", "spam"))),
        say("c", "quality", "x", Rating(value=3)),
    ]
    recipe = spec(least_rating={"quality": 3}, leave_out={"flag": ["spam"]}, unseen="leave_out")
    found = apply_annotations([chat(id) for id in "abcd"], records, recipe)
    assert [example.id for example in found.examples] == ["c"]
    assert [(row.id, row.reason) for row in found.exclusions] == [
        ("a", "rated below 3: quality 2 of 5, 2 of 3"),
        ("b", "labelled spam: flag, 1 of 1"),
        ("d", "not annotated"),
    ]
    assert found.exclusions[0].text == "Why?\nold"


def test_labels_and_spans_become_tags() -> None:
    spans = Spans(spans=(TextSpan(start=0, end=3, label="x", text="old"),))
    records = [
        say("a", "topic", "x", Labels(labels=("p", "q"))),
        say("a", "entities", "x", spans),
        say("a", "other", "x", Labels(labels=("z",))),
    ]
    (example,) = apply_annotations([chat("a")], records, spec(tag=["topic", "entities"])).examples
    assert example.tags == {
        "group": "a",
        "annotations.topic": "1 of 1",
        "label.topic": "p | q",
        "annotations.entities": "1 of 1",
        "label.entities": '[{"start": 0, "end": 3, "label": "x", "text": "old"}]',
    }


def test_a_preference_turns_a_pair_round_and_a_tie_leaves_it_out() -> None:
    pair = Example(
        "p", [Message("user", "Why?")], chosen=[Message("assistant", "A")], rejected=[Message("assistant", "B")]
    )
    turned = apply_annotations([pair], [say("p", "preference", "x", Preference(better="rejected"))], spec())
    assert (turned.examples[0].chosen[0].content, turned.examples[0].rejected[0].content) == ("B", "A")
    kept = apply_annotations([pair], [say("p", "preference", "x", Preference(better="chosen"))], spec())
    assert kept.examples[0].chosen == pair.chosen
    tied = apply_annotations([pair], [say("p", "preference", "x", Preference(better="tie"))], spec())
    assert [row.reason for row in tied.exclusions] == ["no preference: 1 of 1"]


def test_what_is_undecided_stays_unless_told_otherwise() -> None:
    records = [say("a", "topic", who, Labels(labels=(who,))) for who in "xy"]
    assert (
        apply_annotations([chat("a")], records, spec(tag=["topic"])).examples[0].tags["annotations.topic"] == "1 of 2"
    )
    left = apply_annotations([chat("a")], records, spec(tag=["topic"], undecided="leave_out"))
    assert [row.reason for row in left.exclusions] == ["undecided: topic, 1 of 2"]
    ignored = apply_annotations([chat("a")], records, spec(undecided="leave_out", unseen="leave_out"))
    assert [row.reason for row in ignored.exclusions] == ["not annotated"]  # nothing here hangs on that question


def test_the_order_of_records_changes_nothing() -> None:
    records = [
        say("a", "repair", "x", Repair(text="first"), at_ms=1),
        say("a", "repair", "x", Repair(text="second"), at_ms=2),
        say("a", "repair", "y", Repair(text="second"), at_ms=1),
        say("a", "repair", "z", Repair(text="third"), at_ms=1),
    ]
    forth, back = (apply_annotations([chat("a")], each, spec()) for each in (records, records[::-1]))
    assert forth.examples == back.examples
    assert forth.examples[0].messages[-1].content == "second"
