"""Tasks and configuration in Label Studio's documented shapes, its exports as records, and problems told of."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.core.errors import InvalidInput
from espalier.core.types import Example, Message
from espalier.data.annotation.labelstudio.answers import read_export
from espalier.data.annotation.labelstudio.tasks import write_config, write_tasks
from espalier.data.annotation.record import (
    AnnotationRecord,
    Labels,
    Preference,
    Rating,
    Repair,
    Spans,
    TextSpan,
    make_record,
)
from espalier.data.annotation.review import ReviewSpec, left_of

CHAT = Example("a", [Message("user", "Where is Ada?"), Message("assistant", "Ada 🙂 is in Bern.")])
PAIRS = [
    Example(f"p{i}", [Message("user", "Why?")], chosen=[Message("assistant", "good")],
            rejected=[Message("assistant", "bad")])
    for i in range(12)
]  # fmt: skip
REVIEW = ReviewSpec.model_validate(
    {
        "title": "Check <these>",
        "controls": [
            {"kind": "rating", "name": "quality", "scale": 7, "guide": "7 is flawless"},
            {"kind": "label", "name": "topic", "labels": ["people", "places & things"], "multiple": True},
            {"kind": "span", "name": "entities", "labels": ["person", "place"]},
            {"kind": "repair"},
        ],
    }
)


def test_the_configuration_names_each_text_and_control() -> None:
    view = ElementTree.fromstring(write_config(REVIEW, [CHAT]))
    texts = {each.get("name"): each.get("value") for each in view.iter("Text")}
    assert texts == {"question": "$question", "answer": "$answer"}
    assert view.findall("Rating")[0].attrib == {"name": "quality", "toName": "answer", "maxRating": "7"}
    choices = view.findall("Choices")[0]
    assert (choices.get("choice"), [each.get("value") for each in choices]) == (
        "multiple",
        ["people", "places & things"],
    )
    assert [each.get("value") for each in view.findall("Labels")[0]] == ["person", "place"]
    assert view.findall("TextArea")[0].get("value") == "$answer"
    assert [each.get("value") for each in view.iter("Header")] == ["Check <these>", "7 is flawless"]


def test_a_pair_is_shown_with_no_side_that_is_always_the_better() -> None:
    review = ReviewSpec.model_validate({"controls": [{"kind": "pairwise"}]})
    view = ElementTree.fromstring(write_config(review, PAIRS))
    assert view.findall("Pairwise")[0].attrib == {"name": "preference", "toName": "left,right"}
    tasks = write_tasks(PAIRS, "d", review)
    assert {task["data"]["left"] for task in tasks} == {"good", "bad"}
    assert all({task["data"]["left"], task["data"]["right"]} == {"good", "bad"} for task in tasks)


def test_a_control_without_its_text_is_refused() -> None:
    with pytest.raises(InvalidInput, match="needs the text 'left'"):
        write_config(ReviewSpec.model_validate({"controls": [{"kind": "pairwise"}]}), [CHAT])
    with pytest.raises(InvalidInput, match="2 kinds"):
        write_config(REVIEW, [CHAT, Example("t", text="raw")])
    with pytest.raises(ValueError, match="answer is the name of a text"):
        ReviewSpec.model_validate({"controls": [{"kind": "rating", "name": "answer"}]})


def known() -> list[AnnotationRecord]:
    values: list[tuple[str, Any]] = [
        ("quality", Rating(value=6, scale=7)),
        ("topic", Labels(labels=("people", "places & things"))),
        ("entities", Spans(spans=(TextSpan(start=0, end=3, label="person", text="Ada"),
                                  TextSpan(start=12, end=16, label="place", text="Bern")))),
        ("repair", Repair(text="In Bern.")),
    ]  # fmt: skip
    return [make_record("d", "a", question, value, "ada", at_ms=0) for question, value in values]


def annotated(task: dict[str, Any], **fields: Any) -> bytes:
    """The task as Label Studio exports it, its one prediction accepted by a person."""
    annotation = {
        "id": 12, "completed_by": 3, "was_cancelled": False, "ground_truth": False, "lead_time": 4.2,
        "created_at": "2024-05-01T10:00:00.000000Z", "updated_at": "2024-05-01T10:00:01.500000Z",
        "result": task["predictions"][0]["result"] if task["predictions"] else [], **fields,
    }  # fmt: skip
    return json.dumps([{"id": 1, "data": task["data"], "annotations": [annotation], "predictions": []}]).encode()


def test_what_goes_out_as_predictions_comes_back_as_annotations() -> None:
    (task,) = write_tasks([CHAT], "d", REVIEW, known())
    (prediction,) = task["predictions"]
    assert prediction["model_version"] == "ada"
    assert [(each["type"], each["from_name"], each["to_name"]) for each in prediction["result"]] == [
        ("rating", "quality", "answer"),
        ("choices", "topic", "answer"),
        ("labels", "entities", "answer"),
        ("labels", "entities", "answer"),
        ("textarea", "repair", "answer"),
    ]
    found = read_export(annotated(task), names={"3": "ada"})
    assert found.problems == []
    assert {record.question: record.value for record in found.records} == {
        record.question: record.value for record in known()
    }
    (record, *_) = found.records
    assert (record.annotator, record.dataset, record.example) == ("ada", "d", "a")
    assert (record.at_ms, record.lead_time_s) == (1_714_557_601_500, 4.2)


def test_a_preference_is_read_by_what_stood_left() -> None:
    review = ReviewSpec.model_validate({"controls": [{"kind": "pairwise"}]})
    for example, task in zip(PAIRS, write_tasks(PAIRS, "d", review), strict=True):
        result = {
            "id": "x",
            "from_name": "preference",
            "to_name": "left",
            "type": "pairwise",
            "value": {"selected": "left"},
        }
        (record,) = read_export(annotated(task, result=[result])).records
        assert record.value == Preference(better=left_of(example))
        (sent,) = write_tasks([example], "d", review, [record])
        (made,) = sent["predictions"][0]["result"]
        assert (made["from_name"], made["to_name"], made["value"]) == ("preference", "left", {"selected": "left"})


def test_no_span_is_an_answer_and_browser_offsets_are_read() -> None:
    review = ReviewSpec.model_validate({"controls": [{"kind": "span", "name": "entities", "labels": ["place"]}]})
    (task,) = write_tasks([CHAT], "d", review)
    assert [record.value for record in read_export(annotated(task)).records] == [Spans(spans=())]
    # A browser counts the smiley as two: "Bern" stands at 13 there, at 12 here.
    result = {"id": "x", "from_name": "entities", "to_name": "answer", "type": "labels",
              "value": {"start": 13, "end": 17, "text": "Bern", "labels": ["place"]}}  # fmt: skip
    (record,) = read_export(annotated(task, result=[result])).records
    assert record.value == Spans(spans=(TextSpan(start=12, end=16, label="place", text="Bern"),))


def test_skipped_annotations_are_left_out_and_a_last_word_is_known() -> None:
    (task,) = write_tasks([CHAT], "d", REVIEW, known())
    assert read_export(annotated(task, was_cancelled=True)).records == []
    who = {"id": 3, "email": "ada@example.org", "first_name": "Ada"}
    records = read_export(annotated(task, ground_truth=True, completed_by=who)).records
    assert {(record.gold, record.annotator) for record in records} == {(True, "ada@example.org")}
    assert read_export(annotated(task)).records[0].annotator == "user-3"


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        ({"type": "rating", "value": {"rating": 9}}, "9 is above the scale's 7"),
        ({"type": "rectanglelabels", "value": {}}, "kind rectanglelabels, which is not read"),
        ({"type": "choices", "value": {}}, "KeyError: 'choices'"),
        ({"type": "labels", "value": {"start": 0, "end": 99, "text": "x", "labels": ["person"]}}, "are not 'x'"),
        ({"type": "labels", "value": {"start": 9, "end": 3, "labels": ["person"]}}, "no stretch"),
    ],
)
def test_what_cannot_be_read_is_a_problem_of_its_task(result: dict[str, Any], problem: str) -> None:
    (task,) = write_tasks([CHAT], "d", REVIEW)
    whole = {"id": "x", "from_name": "quality", "to_name": "answer", **result}
    found = read_export(annotated(task, result=[whole]))
    assert found.records == []
    assert len(found.problems) == 1
    assert found.problems[0].startswith("task 1, annotation 12: ")
    assert problem in found.problems[0]


def test_tasks_of_other_data_are_problems_and_other_files_are_refused() -> None:
    (task,) = write_tasks([CHAT], "d", REVIEW, known())
    assert read_export(annotated(task), known={"b"}).problems == ["task 1: no example a in this version"]
    stranger = read_export(b'[{"id": 7, "data": {"text": "x"}, "annotations": []}]')
    assert stranger.problems == ["task 7: it does not say which example it shows (data.espalier.example)"]
    for bad in (b"{", b'{"tasks": []}', b"[1]"):
        with pytest.raises(InvalidInput, match=r"not JSON|not a list of tasks"):
            read_export(bad)


_LEAF = st.none() | st.booleans() | st.integers(-3, 9) | st.floats(allow_nan=False) | st.sampled_from(
    ["a", "answer", "rating", "choices", "labels", "pairwise", "textarea", "left", "2024-05-01", "\ud83d"]
)  # fmt: skip
_NAMES = st.sampled_from(
    ["id", "type", "value", "from_name", "to_name", "rating", "choices", "text", "selected", "start", "end", "labels"]
)
_ANY = st.recursive(
    _LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=5), max_leaves=8
)


_RESULT = st.fixed_dictionaries(
    {"from_name": st.sampled_from(["quality", "topic", "entities"]), "to_name": st.sampled_from(["answer", "left", 3]),
     "type": st.sampled_from(["rating", "choices", "labels", "pairwise", "textarea", "odd"]),
     "value": st.dictionaries(_NAMES, _ANY, max_size=5) | _ANY}
)  # fmt: skip


@given(
    st.fixed_dictionaries(
        {"result": st.lists(_RESULT | _ANY, max_size=3) | _ANY},
        optional=dict.fromkeys(
            ["completed_by", "updated_at", "lead_time", "was_cancelled", "ground_truth", "id"], _ANY
        ),
    )
)
def test_no_annotation_however_odd_is_more_than_a_problem(annotation: dict[str, Any]) -> None:
    (task,) = write_tasks([CHAT], "d", REVIEW)
    task["annotations"] = [annotation]
    found = read_export(json.dumps([task]).encode())
    assert len(found.problems) <= 1
    for record in found.records:
        assert AnnotationRecord.model_validate_json(record.model_dump_json()) == record


_DATA = st.just({"answer": "x", "espalier": {"example": "a"}}) | _ANY


@given(st.lists(st.fixed_dictionaries({}, optional={"data": _DATA, "annotations": _ANY, "id": _ANY}), max_size=3))
def test_no_task_however_odd_is_more_than_a_problem(tasks: list[dict[str, Any]]) -> None:
    found = read_export(json.dumps(tasks).encode())
    assert all(record.example == "a" for record in found.records)
