from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from espalier.core.errors import Conflict, InvalidInput, NotFound
from espalier.core.types import Artifact, ModelVersion, Run
from espalier.registry.approvals import review
from espalier.registry.card import make_card
from espalier.registry.export import export_model
from espalier.registry.lineage import Node, trace_down, trace_model, trace_up
from espalier.registry.versions import register
from espalier.store.store import Store


def list_pages(dataset: Artifact) -> list[Node]:
    return [Node(kind="source", id="blob1", label="tickets/7.pdf, page 3")]


@pytest.fixture
def version(store: Store, make: Any) -> ModelVersion:
    """documents -> dataset -> adapter -> report, all by runs, as a pipeline leaves them."""
    store.runs.create(Run(id="run_train", step="train.sft@1", status="succeeded", created_ms=1, actor="ann"))
    place = make.folder / "adapter-by-run"
    place.mkdir()
    (place / "espalier.json").write_text(json.dumps({"base_digest": "b" * 64}))
    (place / "adapter_model.safetensors").write_bytes(b"weights")
    dataset = make.dataset(
        examples=300, splits={"train": 240, "test": 60}, sources=[{}, {}], redactions={"email": 12}, licence="CC0-1.0"
    )
    adapter = store.artifacts.put("adapter", place, made_by="run_train").digest
    report = make.report(f"adapter:{adapter}")
    store.artifacts.link(adapter, dataset, "dataset")
    store.artifacts.link(report, adapter, "adapter")
    store.artifacts.link(report, dataset, "dataset")
    parts = make.registration(adapter=adapter, dataset=dataset, reports=(report,), description="Tickets to records.")
    return register(store, parts, actor="ann")


def test_a_model_is_traced_up_to_the_pages_it_was_trained_on(store: Store, version: ModelVersion) -> None:
    tree = trace_model(store, version.ref, {"dataset": list_pages})
    assert [child.kind for child in tree.children] == ["base", "adapter", "dataset", "report"]
    adapter = tree.children[1]
    run = adapter.children[0]
    assert (run.kind, run.label, run.children[0].kind) == ("run", "train.sft@1", "dataset")
    assert [page.label for page in run.children[0].children] == ["tickets/7.pdf, page 3"]


def test_what_two_paths_reach_is_opened_once(store: Store, version: ModelVersion) -> None:
    tree = trace_model(store, version.ref, {"dataset": list_pages})
    assert len(tree.find("source")) == 1
    assert [node.detail.get("see", "") for node in tree.find("dataset")] == ["", "above", "above"]


def test_a_dataset_is_traced_down_to_the_models_that_hold_it(store: Store, version: ModelVersion) -> None:
    tree = trace_down(store, version.dataset)
    assert {node.id for node in tree.find("model")} == {version.ref}
    assert [node.id for node in tree.find("adapter")] == [version.adapter]
    assert {node.role for node in tree.find("model")} == {"dataset", "adapter", "report"}


def test_an_artifact_without_a_run_shows_its_parents_at_once(store: Store, version: ModelVersion) -> None:
    tree = trace_up(store, version.reports[0])
    assert [(child.kind, child.role) for child in tree.children] == [("adapter", "adapter"), ("dataset", "dataset")]
    with pytest.raises(NotFound):
        trace_up(store, "0" * 64)
    with pytest.raises(NotFound):
        trace_down(store, "0" * 64)


def test_a_tree_survives_json(store: Store, version: ModelVersion) -> None:
    tree = trace_model(store, version.ref)
    assert Node.model_validate_json(tree.model_dump_json()) == tree


def test_the_card_tells_what_is_recorded_and_nothing_else(store: Store, version: ModelVersion) -> None:
    from espalier.core.config import PolicyConfig
    from espalier.registry.approvals import approve

    clauses = review(store, PolicyConfig(), version, "ann")
    pending = make_card(store, version.ref, clauses)
    assert "Not decided yet." in pending
    assert "| NOT met | four_eyes | ann submitted it" in pending
    approve(store, PolicyConfig(), version.ref, actor="bob", comment="fine | really")
    card = make_card(store, version.ref)
    for said in (
        "# model:support@v1",
        "Tickets to records.",
        "300 examples (240 train, 60 test) from 2 files.",
        "Personal data replaced before training: 12 email.",
        "Licence: CC0-1.0.",
        "| tuned | test | xml_valid | 95 % [90, 98] | 60 |",
        r"| Approved | bob |",
        r"fine \| really",
        f"`{version.adapter}`",
        "rest on 60 held-out cases",
    ):
        assert said in card
    assert "xml_fields/t/a" not in card


def test_an_export_is_the_adapter_with_its_card_and_record(store: Store, version: ModelVersion, tmp_path: Path) -> None:
    target = tmp_path / "out"
    export_model(store, version.ref, target)
    assert sorted(path.name for path in target.iterdir()) == [
        "README.md", "adapter_model.safetensors", "espalier.json", "model-version.json",
    ]  # fmt: skip
    assert (target / "adapter_model.safetensors").read_bytes() == b"weights"
    assert ModelVersion.model_validate_json((target / "model-version.json").read_bytes()) == version
    (target / "adapter_model.safetensors").write_bytes(b"changed")  # a copy is the user's own
    assert store.artifacts.check(version.adapter) == ""
    with pytest.raises(Conflict, match="exists"):
        export_model(store, version.ref, target)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_base_alone_has_nothing_to_export(store: Store, make: Any, tmp_path: Path) -> None:
    parts = make.registration().model_copy(update={"adapter": "", "reports": ()})
    with pytest.raises(InvalidInput, match="no files of its own"):
        export_model(store, register(store, parts, actor="ann").ref, tmp_path / "out")
