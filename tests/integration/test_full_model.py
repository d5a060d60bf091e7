"""A model tuned in full lives like an adapter: evaluated, registered, approved, asked, exported, and tuned further."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from espalier.core.config import ServeConfig
from espalier.core.ports import ChatRequest
from espalier.core.refs import Ref
from espalier.core.types import Message, SamplingSpec
from espalier.nn.base import load_base
from espalier.pipeline import run as pipeline_run
from espalier.pipeline.executors.inline import InlineExecutor
from espalier.sdk.client import Client
from espalier.services.pool import ModelPool
from espalier.services.resolver import RegistryResolver
from espalier.store.store import open_store
from espalier.store.workspace import Workspace, init_workspace
from espalier.testing.tiny import make_tiny_base

RECIPE = """
name: codes
steps:
  dataset:
    step: data.build
    with:
      name: codes
      source: {path: ., include: [codes.jsonl]}
      task: {kind: completion, prompt: q, completion: a}
      split: {test: 0.4, validation: 0.1, near: 1}
      leaks: {near: 1}
  tuned:
    step: train.sft
    inputs: {dataset: dataset.dataset}
    with: {base: "path:base", tune: full, epochs: 1, lr: 0.003, pack_tokens: 128}
  further:
    step: train.sft
    inputs: {dataset: dataset.dataset, base: tuned.base}
    with: {epochs: 1, pack_tokens: 128, lora: {rank: 2}}
  report:
    step: eval.run
    inputs: {dataset: dataset.dataset, base: tuned.base}
    with: {label: tuned in full, metrics: [{name: exact_match}], sampling: {max_tokens: 4}}
  version:
    step: model.register
    inputs: {base: tuned.base, dataset: dataset.dataset, report: report.report}
    with: {name: codes}
"""


def espalier(folder: Path, *arguments: str) -> Any:
    command = [sys.executable, "-m", "espalier.cli.main", *arguments, "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def ask(folder: Path, question: str) -> str:
    """The answer of model:codes@v1, as the server would find and load it."""
    store = open_store(Workspace(folder))
    pool = ModelPool(store, ServeConfig())
    try:
        target = RegistryResolver(store, ServeConfig()).find_version(Ref.parse("codes@v1", kind="model"))
        sampling = SamplingSpec(temperature=0.0, max_tokens=4)
        request = ChatRequest("r", target.base, target.adapter, [Message("user", question)], sampling)
        assert pool.count_prompt_tokens(request) > 0

        async def collect() -> str:
            return "".join([delta.text async for delta in pool.stream(request)])

        return asyncio.run(collect())
    finally:
        pool.stop()
        store.close()


@pytest.mark.slow
def test_a_fully_tuned_model_is_registered_asked_exported_and_tuned_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_run, "LocalExecutor", InlineExecutor)  # a child process each would import torch each
    make_tiny_base(tmp_path / "base", seed=1)
    rows = [{"q": f"Give the code. The code is {n:03d}.", "a": f"<code>{n:03d}</code>"} for n in range(150)]
    (tmp_path / "codes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    init_workspace(tmp_path)
    with Client(tmp_path, actor="ann") as client:
        run = client.pipelines.run(recipe="recipe.yaml").wait()
    made = run.outputs["tuned.base"]
    version = espalier(tmp_path, "models", "show", "codes@v1")
    assert json.dumps(version).count(f"artifact:{made}") >= 1
    espalier(tmp_path, "models", "approve", "codes@v1", "--as", "ada")
    assert ask(tmp_path, "The code is 007.")
    espalier(tmp_path, "models", "export", "codes@v1", "out")
    exported = load_base(f"path:{tmp_path / 'out'}")
    assert exported.tokenizer_digest == load_base(f"path:{tmp_path / 'base'}").tokenizer_digest
    adapter = run.outputs["further.adapter"]
    folder = next((tmp_path / ".espalier").rglob(f"{adapter}/espalier.json"), None)
    if folder is not None:  # laid out when something asked for it
        assert json.loads(folder.read_text())["base_digest"] == exported.base_digest
