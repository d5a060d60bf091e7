"""The recipes on the pages of generation and annotation are recipes."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from espalier.core.recipefile import load_recipe

_DOCS = Path(__file__).parents[3] / "docs"
_KINDS = {
    "annotate": "espalier.data.annotation.automatic:AnnotateSpec",
    "apply": "espalier.data.annotation.apply:ApplySpec",
    "data": "espalier.data.spec:DataSpec",
    "generate": "espalier.data.generate.spec:GenerateSpec",
    "pipeline": "espalier.pipeline.graph:Graph",
    "review": "espalier.data.annotation.review:ReviewSpec",
}
_RECIPES = [
    (page, kind, text)
    for page in ("generation.md", "annotation.md")
    for kind, text in re.findall(
        r"^```yaml (\w+)\n(.*?)^```$", (_DOCS / page).read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
]


def test_there_are_recipes() -> None:
    assert {kind for _, kind, _ in _RECIPES} == set(_KINDS)


@pytest.mark.parametrize(("page", "kind", "text"), _RECIPES, ids=lambda value: value.split("\n")[0][:30])
def test_a_recipe_of_a_page_is_one(page: str, kind: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text, "utf-8")
    module, _, name = _KINDS[kind].partition(":")
    assert load_recipe(tmp_path / "recipe.yaml", getattr(importlib.import_module(module), name))
