"""Annotations through the operations: out to Label Studio, back, measured, settled, and made into a new version."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.types import Example, Message
from espalier.data.layout import read_exclusions
from espalier.data.manifest import read_manifest
from espalier.sdk.client import Client
from espalier.services.catalogue import find_dataset, publish_dataset
from espalier.services.context import Context, open_context
from espalier.store.examples import read_examples, write_examples
from espalier.store.workspace import init_workspace
from espalier.testing.endpoint import Say, serve_script

REVIEW = """
title: Are these answers right?
controls:
  - {kind: rating, name: quality}
  - {kind: label, name: topic, labels: [billing, other]}
  - {kind: repair}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A workspace with `support@v1`: four questions about an invoice, and four about the weather."""
    init_workspace(tmp_path)
    context = open_context(tmp_path, actor="ada")
    rows = [
        Example(
            f"e{i}", [Message("user", f"{'invoice' if i < 4 else 'weather'} {i}?"), Message("assistant", f"No {i}.")]
        )
        for i in range(8)
    ]
    write_examples(tmp_path / "made" / "data" / "train-00000.parquet", rows)
    artifact = context.store.artifacts.put("dataset", tmp_path / "made", {"name": "support"})
    publish_dataset(context.store, artifact, "support", "ada")
    context.close()
    return tmp_path


@pytest.fixture
def client(folder: Path) -> Iterator[Client]:
    with Client(folder, actor="ada") as client:
        yield client


@pytest.fixture
def context(folder: Path) -> Iterator[Context]:
    context = open_context(folder)
    yield context
    context.close()


def answer_as(tasks: list[dict[str, Any]], who: int, quality: int, mend: bool = False) -> bytes:
    """The tasks as Label Studio exports them once a person has answered."""
    for number, task in enumerate(tasks):
        topic = "billing" if "invoice" in task["data"]["question"] else "other"
        results: list[dict[str, Any]] = [
            {"id": "r", "from_name": "quality", "to_name": "answer", "type": "rating", "value": {"rating": quality}},
            {"id": "c", "from_name": "topic", "to_name": "answer", "type": "choices", "value": {"choices": [topic]}},
        ]
        if mend and number == 0:
            results.append(
                {"id": "t", "from_name": "repair", "to_name": "answer", "type": "textarea", "value": {"text": ["Yes."]}}
            )
        at = "2024-05-01T10:00:00Z"
        task["annotations"] = [{"id": number, "completed_by": who, "updated_at": at, "result": results}]
    return json.dumps(tasks).encode()


def test_a_review_goes_out_comes_back_and_makes_a_version(folder: Path, client: Client, context: Context) -> None:
    (folder / "review.yaml").write_text(REVIEW)
    out = client.annotations.export(ref="support", folder="review", review="review.yaml")
    assert out.examples == 8
    assert "<Rating" in Path(out.config).read_text("utf-8")
    for who, quality in ((1, 4), (2, 2)):
        (folder / f"{who}.json").write_bytes(
            answer_as(json.loads(Path(out.tasks).read_bytes()), who, quality, who == 1)
        )
    for name in ("1.json", "2.json", "1.json"):
        report = client.call("annotations.import", ref="support", file=name, name=("1=ada",))
        assert report.problems == ()
    assert (report.read, report.new) == (17, 0)  # again, and nothing new

    quality = next(
        each for each in client.annotations.agreement(ref="support").questions if each["question"] == "quality"
    )
    assert quality["annotators"] == {"ada": 8, "user-2": 8}
    queue = client.annotations.queue(ref="support")
    assert [(each.question, each.disagreement, each.said) for each in queue] == [
        ("quality", 0.5, "ada: 4 of 5, user-2: 2 of 5")
    ] * 8
    client.annotations.add(ref="support", example="e3", kind="rating", value="5", gold=True)
    assert len(client.annotations.queue(ref="support")) == 7
    again = client.annotations.export(ref="support", folder="queue", review="review.yaml", disagreements=True, limit=2)
    assert [task["data"]["espalier"]["example"] for task in json.loads(Path(again.tasks).read_bytes())] == ["e0", "e1"]
    assert {each["model_version"] for each in json.loads(Path(again.tasks).read_bytes())[0]["predictions"]} == {
        "ada",
        "user-2",
    }

    (folder / "apply.yaml").write_text("name: support\nrule: adjudicated\nundecided: leave_out\ntag: [topic]\n"
                                       "least_rating: {quality: 3}\n")  # fmt: skip
    run = client.annotations.apply(recipe="apply.yaml", ref="support").wait()
    version = find_dataset(context.store, "support")
    assert (run.status, version.version) == ("succeeded", 2)
    made = context.store.artifacts.materialise(version.digest)
    (left,) = read_examples(made)
    assert (left.id, left.tags["label.topic"], left.tags["annotations.quality"]) == ("e3", "billing", "gold")
    assert {row["reason"].split(":")[0] for row in read_exclusions(made)} == {"undecided"}
    assert read_manifest(made).drops == {"undecided": 7}


def test_rules_and_a_model_are_annotators_like_any(folder: Path, client: Client, context: Context) -> None:
    control = {"kind": "label", "name": "topic", "labels": ["billing", "other"]}
    found = {"pattern": "invoice", "part": "question", "says": "billing"}
    rule = {"name": "money", "control": control, "rules": [found], "otherwise": "other"}
    (folder / "rule.yaml").write_text(json.dumps(rule))
    assert client.annotations.annotate(recipe="rule.yaml", ref="support").wait().status == "succeeded"

    def script(call: dict[str, Any], before: int) -> Say:
        label = "billing" if "invoice 0" in call["messages"][-1]["content"] else "other"
        return Say(json.dumps({"labels": [label], "reason": "so it seems"}))

    with serve_script(script) as server:
        model = {"endpoint": server.url, "model": "scripted"}
        (folder / "model.yaml").write_text(json.dumps({"name": "judge", "control": control, "model": model}))
        for _ in range(2):
            run = client.annotations.annotate(recipe="model.yaml", ref="support").wait()
        assert len(server.requests) == 8
    assert run.status == "succeeded"
    records = client.annotations.list(ref="support", history=True)
    assert len(records) == 16  # annotating again says nothing new
    assert {(each.annotator, each.by) for each in records} == {("money", "rule"), ("judge", "model")}
    queue = client.annotations.queue(ref="support")
    assert [each.example for each in queue] == ["e1", "e2", "e3"]
    assert "  judge and money: kappa 0.250 [" in client.annotations.agreement(ref="support").to_text()


def test_a_pipeline_annotates_and_applies_in_one_run(folder: Path, client: Client, context: Context) -> None:
    digest = find_dataset(context.store, "support").digest
    control = {"kind": "label", "name": "topic", "labels": ["billing", "other"]}
    rule = {"pattern": "invoice", "part": "question", "says": "billing"}
    steps = {
        "marks": {
            "step": "data.annotate",
            "inputs": {"dataset": f"sha256:{digest}"},
            "with": {"name": "money", "control": control, "rules": [rule], "otherwise": "other"},
        },
        "billing": {
            "step": "data.apply_annotations",
            "inputs": {"dataset": f"sha256:{digest}", "annotations": "marks.annotations"},
            "with": {"name": "billing", "leave_out": {"topic": ["other"]}},
        },
    }
    (folder / "both.yaml").write_text(json.dumps({"name": "both", "steps": steps}))
    assert client.pipelines.run(recipe="both.yaml").wait().status == "succeeded"
    made = context.store.artifacts.materialise(find_dataset(context.store, "billing").digest)
    assert [example.id for example in read_examples(made)] == ["e0", "e1", "e2", "e3"]


def test_what_cannot_be_said_is_refused(folder: Path, client: Client) -> None:
    with pytest.raises(NotFound, match="no example 'e99'"):
        client.annotations.add(ref="support", example="e99", kind="rating", value="3")
    for kind, value in (("rating", "9"), ("pairwise", "left"), ("span", "[{}]"), ("span", "{")):
        with pytest.raises(InvalidInput, match=f"is no {kind}"):
            client.annotations.add(ref="support", example="e0", kind=kind, value=value)
    with pytest.raises(NotFound, match="nobody has annotated"):
        (folder / "apply.yaml").write_text("name: support\n")
        client.annotations.apply(recipe="apply.yaml", ref="support").wait()
    (folder / "bad.json").write_text('[{"data": {"text": "x"}}]')
    report = client.call("annotations.import", ref="support", file="bad.json")
    assert (report.read, report.exit_code) == (0, 1)
    with pytest.raises(InvalidInput, match="does not say which example"):
        client.call("annotations.import", ref="support", file="bad.json", strict=True)


def test_every_kind_of_value_can_be_said(client: Client) -> None:
    for kind, value, said in (
        ("rating", "4", "4 of 5"),
        ("label", "b | a", "a | b"),
        ("span", '[{"start": 0, "end": 2, "label": "x"}]', "x 0-2"),
        ("pairwise", "tie", "tie"),
        ("repair", "Yes.", "Yes."),
    ):
        assert client.annotations.add(ref="support", example="e0", kind=kind, value=value).said == said
    assert len(client.annotations.list(ref="support", example="e0")) == 5
