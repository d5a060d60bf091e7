"""docs/families.md says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from espalier.nn.adapters import find_targets
from espalier.nn.lora import LoraSpec
from espalier.nn.shape import lean_shape
from espalier.testing.families import FAMILIES, family_model

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/families.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")][
    1:
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_names_the_way_a_family_is_computed_and_what_adapters_stand_on(row: list[str]) -> None:
    kind = row[1].strip("`")
    models = [model for model in map(family_model, FAMILIES) if model.config.model_type == kind]
    assert models
    for model in models:
        assert (lean_shape(model.config) is not None) == (row[3] == "lean")
        layers = {name.rpartition(".")[2].removesuffix("_proj") for name in find_targets(model, LoraSpec())}
        assert layers == set(row[4].split(", "))


def test_every_recipe_is_in_the_table() -> None:
    linked = set(re.findall(r"\(\.\./(recipes/families/[\w.-]+)\)", PAGE))
    assert linked == {f"recipes/families/{path.name}" for path in (ROOT / "recipes/families").glob("*.yaml")}


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert code
    exec(compile(code[1], "docs/families.md", "exec"), {})
    assert capsys.readouterr().out == "packs are computed whole\n"
