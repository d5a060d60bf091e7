"""The examples run as they stand."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from espalier.pipeline import run as pipeline_run
from espalier.pipeline.executors.inline import InlineExecutor
from espalier.sdk.client import Client
from espalier.services.context import open_context
from espalier.store.workspace import init_workspace

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(EXAMPLES / "own_step", tmp_path, dirs_exist_ok=True)
    run(tmp_path, "-m", "espalier.cli.main", "init", "--no-starter")
    return tmp_path


def run(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ESPALIER_")}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=True)


@pytest.mark.slow
def test_a_step_of_ones_own_runs_and_is_then_a_hit_until_it_is_edited(project: Path) -> None:
    recipe = ("-m", "espalier.cli.main", "run", "recipe.yaml")
    first = run(project, *recipe)
    assert "lengths" in first.stderr and "never run" in first.stderr
    made = json.loads(run(project, *recipe, "--json").stdout)["outputs"]["lengths.lengths"]
    context = open_context(project)
    found = context.store.artifacts.materialise(made) / "lengths.json"
    context.close()
    assert json.loads(found.read_text())["answer"]["median"] == 12.5
    assert "+ " not in run(project, *recipe).stderr
    (project / "lengths.py").write_text((project / "lengths.py").read_text() + "\nEDITED = True\n")
    again = run(project, *recipe)
    assert "code changed: lengths" in again.stderr


@pytest.mark.slow
def test_the_sdk_example_says_what_ran_and_what_came_out(project: Path) -> None:
    said = run(project, EXAMPLES / "watch_a_run.py", project, "recipe.yaml").stdout.splitlines()
    assert [line.split()[:2] for line in said[:2]] == [["dataset", "ran"], ["lengths", "ran"]]
    assert said[2].endswith("succeeded")
    assert run(project, EXAMPLES / "watch_a_run.py", project, "recipe.yaml").stdout.count(" hit ") == 2


@pytest.mark.slow
def test_preferences_tell_the_right_answer_from_one_that_only_looks_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(EXAMPLES / "preference", tmp_path, dirs_exist_ok=True)
    run(tmp_path, "make_notes.py")
    init_workspace(tmp_path)
    monkeypatch.setattr(pipeline_run, "LocalExecutor", InlineExecutor)  # a child process each would import torch each
    with Client(tmp_path, actor="ann") as client:
        made = client.pipelines.run(recipe="recipe.yaml").wait().outputs
    context = open_context(tmp_path)
    found = [context.store.artifacts.materialise(made[f"{step}.report"]) for step in ("before", "after")]
    context.close()
    before, after = (json.loads((folder / "report.json").read_text())["scores"][0]["value"] for folder in found)
    assert after > before + 0.2


def test_every_example_is_named_in_the_readme_and_says_what_it_shows() -> None:
    readme = (EXAMPLES / "README.md").read_text("utf-8")
    for path in EXAMPLES.rglob("*.py"):
        assert path.relative_to(EXAMPLES).parts[0].removesuffix("/") in readme
        assert ast.get_docstring(ast.parse(path.read_text("utf-8")))
