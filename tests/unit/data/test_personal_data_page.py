"""docs/personal-data.md is held to the code: its recipe is one, every kind, rule and mode stands on it."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from espalier.data.pii import codes, contacts, credentials
from espalier.data.pii.numerals import SHAPES
from espalier.data.pii.report import find_personal
from espalier.data.pii.rules import KINDS
from espalier.data.pii.spec import Mode, RedactSpec
from espalier.data.spec import DataSpec

PAGE = (Path(__file__).parents[3] / "docs" / "personal-data.md").read_text("utf-8")
BLOCKS = re.findall(r"```(yaml|python)\n(.*?)```", PAGE, re.DOTALL)


def test_the_recipe_of_the_page_is_one() -> None:
    recipe, *lines = [YAML(typ="safe").load(block) for kind, block in BLOCKS if kind == "yaml"]
    spec = DataSpec.model_validate(recipe)
    assert [step.step for step in spec.steps] == ["normalise", "redact"]
    for line in lines:
        for step in line:
            assert RedactSpec.model_validate(step).recognizers


def test_what_the_page_finds_is_found() -> None:
    (shown,) = [block for kind, block in BLOCKS if kind == "python" and "find_personal" in block]
    (text,) = re.findall(r'find_personal\(\["(.*)"\]\)', shown)
    assert f"# {find_personal([text]).to_pylist()}" in shown


@pytest.mark.parametrize("name", [*KINDS, *typing.get_args(Mode), *RedactSpec.model_fields])
def test_every_kind_mode_and_parameter_stands_on_the_page(name: str) -> None:
    assert re.search(rf"\b{name}\b", PAGE) or name in ("name_columns", "name_parts")


def test_every_rule_stands_on_the_page() -> None:
    named = {shape.name for shape in SHAPES}
    for rule in (contacts.MAIL, *credentials.RULES, *contacts.RULES, *codes.RULES):
        named.add(rule.name)
    assert not {name for name in named if f"`{name}`" not in PAGE}
