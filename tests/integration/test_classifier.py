"""A classifier's whole life: data built, a head trained, held to the same measure as a model that writes, and asked."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from espalier.core.errors import NotFound
from espalier.core.types import Run
from espalier.pipeline import run as pipeline_run
from espalier.pipeline.executors.inline import InlineExecutor
from espalier.sdk.client import Client
from espalier.store.workspace import init_workspace
from espalier.testing.tiny import make_tiny_base

pytestmark = pytest.mark.slow

_RECIPE = """
name: intents
steps:
  dataset:
    step: data.build
    with:
      name: intents
      source: {path: ., include: ["intents.csv"]}
      steps: [{step: normalise}]
      task: {kind: classification, text: words, label: intent, template: "{{ text }}"}
      split: {test: 0.3, validation: 0.1, stratify_by: [intent], near: 1}
  head:
    step: train.classify
    inputs: {dataset: dataset.dataset}
    with: {base: "path:tiny", epochs: 12, lora: {rank: 4}, lr: 0.01, pack_tokens: 128}
  headed:
    step: eval.run
    inputs: {dataset: dataset.dataset, adapter: head.adapter}
    with: &eval
      {label: head, base: "path:tiny", labels: true, metrics: [{name: exact_match}], sampling: {max_tokens: 6}}
  written:
    step: eval.run
    inputs: {dataset: dataset.dataset}
    with: {<<: *eval, label: "the base, in words"}
"""
_WORDS = {"animal": ("fox", "dog", "lazy dog"), "number": ("01", "234", "56 78"), "record": ("<record", "id=", "/>")}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("intents")
    rows = [(f"The {word} {n}{'.' * (n % 4)}", label) for n in range(8) for label, ws in _WORDS.items() for word in ws]
    (folder / "intents.csv").write_text("words,intent\n" + "".join(f'"{text}",{label}\n' for text, label in rows))
    make_tiny_base(folder / "tiny", seed=1)
    (folder / "intents.yaml").write_text(_RECIPE)
    init_workspace(folder)
    return folder


@pytest.fixture(scope="module")
def lived(house: Path) -> Iterator[tuple[Client, dict[str, Run]]]:
    with pytest.MonkeyPatch.context() as patch, Client(house, actor="ada") as client:
        patch.setattr(pipeline_run, "LocalExecutor", InlineExecutor)  # a child process each would import torch each
        run = client.pipelines.run(recipe="intents.yaml").wait()
        assert run.status == "succeeded", run.error
        steps = {one.name.rpartition(".")[2]: one for one in client.runs.list(parent=run.id, limit=50)}
        yield client, steps


def test_a_head_and_a_writer_are_held_to_the_same_measure(lived: tuple[Client, dict[str, Run]]) -> None:
    client, steps = lived
    shown: dict[str, Any] = {name: client.evals.show(report=steps[name].id) for name in ("headed", "written")}
    for view in shown.values():
        labels = view.labels
        accuracy = view.report.score("exact_match")
        assert labels["accuracy"]["value"] == pytest.approx(accuracy.value)
        assert labels["macro_f1"]["ci_low"] <= labels["macro_f1"]["value"] <= labels["macro_f1"]["ci_high"]
        assert {one["label"] for one in labels["labels"]} == set(_WORDS)
    assert shown["headed"].report.score("exact_match").value >= 0.8
    assert shown["headed"].labels["no_label"] == 0  # a head can say nothing else
    assert steps["headed"].metrics["macro_f1"] == pytest.approx(shown["headed"].labels["macro_f1"]["value"])


def test_the_trained_head_is_asked_for_labels(lived: tuple[Client, dict[str, Run]], house: Path) -> None:
    client, steps = lived
    found = client.models.classify(model=steps["head"].id, texts=["The lazy dog 3...", "The 234 1."])
    assert [view.label for view in found] == ["animal", "number"]
    assert found[0].probability == max(found[0].probabilities.values())
    with pytest.raises(NotFound, match="made no adapter"):
        client.models.classify(model=steps["written"].id, texts=["The fox"])
    command = [
        sys.executable,
        "-m",
        "espalier.cli.main",
        "models",
        "classify",
        steps["head"].id,
        "The lazy dog 3...",
        "The id= 4",
    ]
    said = subprocess.run(command, cwd=house, capture_output=True, text=True, check=True).stdout
    assert "animal" in said and "record" in said
