"""A search over a recipe: poor trials are pruned, a repeated search adds the rest, and a killed one goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from espalier.sdk.client import Client
from espalier.store.workspace import init_workspace
from espalier.testing.tiny import make_tiny_base

pytest.importorskip("optuna")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp_path = init_workspace(tmp_path_factory.mktemp("search")).root
    make_tiny_base(tmp_path / "base", seed=1)
    rows = [{"q": f"Give the code. The code is {n:03d}.", "a": f"<code>{n:03d}</code>"} for n in range(60)]
    (tmp_path / "codes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "data.yaml").write_text(
        "name: codes\nsource: {path: ., include: [codes.jsonl]}\n"
        "task: {kind: completion, prompt: q, completion: a}\n"
        "split: {test: 0.1, validation: 0.2, near: 1}\nleaks: {near: 1}\n"
    )
    (tmp_path / "train.yaml").write_text("base: path:base\nepochs: 1\npack_tokens: 128\nlora: {rank: 2}\n")
    (tmp_path / "search.yaml").write_text(
        "recipe: train.yaml\ntrials: 3\nwarmup_trials: 1\nsampler: grid\n"
        "space: {lr: {choices: [0.000001, 0.01, 0.02]}}\n"
    )
    with Client(tmp_path) as client:
        client.datasets.build(recipe="data.yaml").wait()
    return tmp_path


def _espalier(folder: Path, *arguments: str) -> Any:
    command = [sys.executable, "-m", "espalier.cli.main", *arguments, "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout.startswith("{") else None


def _trials(folder: Path, run: str) -> list[dict[str, Any]]:
    log = folder / ".espalier" / "runs" / run / "events.jsonl"
    events = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    return [event for event in events if event["kind"] == "search.told"]


@pytest.mark.slow
def test_a_search_finds_the_better_rate_and_a_longer_one_adds_only_the_rest(workspace: Path) -> None:
    short = _espalier(workspace, "train", "search", "search.yaml", "--dataset", "codes")
    told = _trials(workspace, short["id"])
    assert len(told) == 3
    assert short["spec"]["best"]["lr"] > 0.000001
    assert "adapter" in short["outputs"]
    again = _espalier(workspace, "train", "search", "search.yaml", "--dataset", "codes")
    assert _trials(workspace, again["id"]) == []
    assert again["outputs"] == short["outputs"]


def test_a_measure_no_training_has_is_refused_with_the_nearest(workspace: Path) -> None:
    recipe = (workspace / "search.yaml").read_text()
    (workspace / "wrong.yaml").write_text(recipe + "measure: validation_los\n")
    command = [sys.executable, "-m", "espalier.cli.main", "train", "search", "wrong.yaml", "--dataset", "codes"]
    done = subprocess.run(command, cwd=workspace, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "validation_los" in done.stderr and "validation_loss" in done.stderr
