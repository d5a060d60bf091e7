"""docs/duplicates-and-splits.md is held to the code: its recipes are the defaults, and its examples do as they say."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from espalier.data.dedup.candidates import LEADERS, SMALL
from espalier.data.dedup.step import DedupSpec
from espalier.data.leaks import LeakSpec
from espalier.data.spec import DataSpec
from espalier.data.split import SplitSpec

PAGE = (Path(__file__).parents[3] / "docs" / "duplicates-and-splits.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("section", "model"),
    [("steps", DedupSpec), ("split", SplitSpec), ("leaks", LeakSpec)],
    ids=["dedup", "split", "leaks"],
)
def test_each_recipe_of_the_page_shows_every_key_with_its_default(section: str, model: type[BaseModel]) -> None:
    (block,) = [block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if block.startswith(f"{section}:")]
    shown = YAML(typ="safe").load(block)[section]
    shown = shown[0] if section == "steps" else shown
    assert model.model_validate(shown) == model()
    assert set(shown) == set(model.model_fields)


def test_the_recipe_to_try_is_one() -> None:
    (recipe,) = re.findall(r"<<'RECIPE'\n(.*?)RECIPE", PAGE, re.DOTALL)
    assert DataSpec.model_validate(YAML(typ="safe").load(recipe)).leaks.against == ("../exam.jsonl",)


def test_the_example_in_python_prints_what_it_says() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    assert printed.getvalue().strip() == code.rpartition("# ")[2].strip()


def test_the_numbers_of_large_buckets_are_those_of_the_code() -> None:
    first, second, last = LEADERS
    assert f"more than {SMALL} rows share a band" in PAGE
    assert f"the first {first}, then {second}, then {last} kept ones" in PAGE
