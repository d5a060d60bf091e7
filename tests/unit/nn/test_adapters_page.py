"""docs/adapters.md: its recipes are recipes, its pipeline is one, its program runs, its commands are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from espalier.core.recipefile import check_recipe, read_yaml
from espalier.train.recipe import SftSpec

PAGE = (Path(__file__).parents[3] / "docs" / "adapters.md").read_text("utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
RECIPES = [block for block in BLOCKS if block.startswith("# recipe")]


@pytest.mark.parametrize("recipe", RECIPES, ids=["lora", "qlora", "full"])
def test_a_recipe_of_the_page_is_one(recipe: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe)
    spec = check_recipe(read_yaml(path), SftSpec, path)
    assert spec != SftSpec()


def test_the_pipeline_fits_together(tmp_path: Path) -> None:
    from espalier.pipeline.graph import load_pipeline
    from espalier.pipeline.lint import lint

    (pipeline,) = (block for block in BLOCKS if block not in RECIPES)
    path = tmp_path / "pipeline.yaml"
    path.write_text(pipeline)
    for name in ("from-elsewhere", "another"):
        (tmp_path / name).mkdir()
    assert not lint(load_pipeline(path))


def test_the_program_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/adapters.md", "exec"), {})
    bits, numbers, digest = capsys.readouterr().out.splitlines()
    assert bits.startswith("4.1")
    assert "numbers learn" in numbers
    assert re.fullmatch("[0-9a-f]{12}", digest)
    assert (tmp_path / "merged" / "config.json").exists()


def test_the_commands_have_these_options() -> None:
    from espalier.core.operations import load_operations

    table = load_operations()
    commands = re.findall(r"^    espalier adapter (\w+) (.*)$", PAGE, re.MULTILINE)
    assert {verb for verb, _ in commands} == {"show", "import", "merge", "combine"}
    for verb, rest in commands:
        options = {word.removeprefix("--") for word in shlex.split(rest) if word.startswith("--")}
        assert options <= set(table[f"adapters.{verb}"].request.model_fields)
