"""A small house that was lived in: a made-up company, a tiny base, and a pipeline that went through every stage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from espalier.core.types import Run
from espalier.pipeline import run as pipeline_run
from espalier.pipeline.executors.inline import InlineExecutor
from espalier.sdk.client import Client
from espalier.services.datasets import write_sample
from espalier.store.workspace import init_workspace
from espalier.testing.tiny import make_tiny_base

# The whole recipe of the demo in miniature: a random base of 70,000 parameters, two dozen files, a few steps.
_RECIPE = """
name: support
parameters: {base: "path:tiny", epochs: 1}
steps:
  prompt:
    step: prompt.write
    with: {name: support-dossier, template: "{{ input }}\\nWrite the house dossier of this ticket."}
  dataset:
    step: data.build
    with:
      name: support
      source: {path: ., include: ["tickets/*"], exclude: ["*.csv"]}
      steps: [{step: normalise}, {step: replies}, {step: redact, names: backoffice/contacts.csv}, {step: dedup}]
      task: {kind: extraction, labels: backoffice/records.jsonl, key: '\\bLK-\\d{5}\\b'}
      split: {test: 0.3, validation: 0.1}
  before:
    step: eval.run
    inputs: {dataset: dataset.dataset, prompt: prompt.prompt}
    with: &eval
      label: base
      base: ${parameters.base}
      limit: 4
      sampling: {max_tokens: 4}
      metrics: [{name: xml_valid, options: {schema: backoffice/house.xsd}}, {name: exact_match}]
  adapter:
    step: train.sft
    inputs: {dataset: dataset.dataset, prompt: prompt.prompt}
    with:
      base: ${parameters.base}
      epochs: ${parameters.epochs}
      lora: {rank: 2}
      pack_tokens: 1024
      checkpoint_every_steps: 4
  after:
    step: eval.run
    inputs: {dataset: dataset.dataset, prompt: prompt.prompt, adapter: adapter.adapter}
    with: {<<: *eval, label: tuned}
  comparison:
    step: eval.compare
    inputs: {baseline: before.report, candidate: after.report}
  gate:
    step: eval.gate
    inputs: {candidate: after.report}
    with: {conditions: ["xml_valid >= 0"]}
  version:
    step: model.register
    inputs:
      adapter: adapter.adapter
      dataset: dataset.dataset
      prompt: prompt.prompt
      report: after.report
      verdict: gate.verdict
    with: {name: support, base: "${parameters.base}", description: Support tickets to house dossiers.}
"""


@dataclass(frozen=True, slots=True)
class House:
    """The workspace, and what its pipeline came to."""

    folder: Path
    run: Run

    def client(self, actor: str = "ada") -> Client:
        return Client(self.folder, actor=actor)


def build_house(folder: Path) -> Path:
    """The folder with documents, recipe, tiny base and workspace; nothing has run in it."""
    write_sample(folder, seed=5, files=40)
    make_tiny_base(folder / "tiny", seed=1, context_tokens=2048)
    (folder / "support.yaml").write_text(_RECIPE, "utf-8")
    init_workspace(folder)
    # Four cases are few: this house's policy says so.
    (folder / ".espalier" / "config.yaml").write_text(
        "policy: {min_cases: 4}\nserve: {port: 0, max_context_tokens: 2048}\n", "utf-8"
    )
    return folder


@pytest.fixture(scope="session")
def make_house() -> Any:
    """`make_house(folder)`: a house nobody has lived in."""
    return build_house


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    """One house for all tests that only look, or add to it."""
    folder = build_house(tmp_path_factory.mktemp("house") / "larkspur")
    with pytest.MonkeyPatch.context() as patch, Client(folder, actor="ada") as client:
        # A child process each would import torch each; test_kill goes through the very same steps in processes.
        patch.setattr(pipeline_run, "LocalExecutor", InlineExecutor)
        run = client.pipelines.run(recipe="support.yaml").wait()
    return House(folder, run)


@contextmanager
def serve(folder: Path, *settings: str) -> Iterator[str]:
    """`espalier serve` as a process of its own; yields its address."""
    command = [sys.executable, "-m", "espalier.cli.main", "serve", "--json", "--workspace", str(folder)]
    for setting in settings:
        command += ["--set", setting]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            yield str(json.loads(process.stdout.readline())["url"])
        finally:
            process.terminate()
            process.wait(240)


@pytest.fixture(scope="session")
def released(house: House) -> House:
    """The house with its version approved by a second person and given the alias production."""
    with house.client("grace") as approver:
        version: Any = approver.models.show(ref="support").version
        if version.status == "PendingManualApproval":
            approver.models.approve(ref=version.ref, comment="four cases read")
        approver.models.promote(ref=version.ref)
    return house


@pytest.fixture(scope="session")
def serving() -> Any:
    """`with serving(folder, *settings) as url`."""
    return serve
