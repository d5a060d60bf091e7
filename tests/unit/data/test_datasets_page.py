"""docs/datasets.md is held to the code: its recipe is the defaults, and nothing a recipe may say is missing from it."""

from __future__ import annotations

import re
import typing
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from espalier.data.leaks import LeakSpec
from espalier.data.spec import DataSpec, StepSpec, TaskSpec
from espalier.data.split import SplitSpec

PAGE = (Path(__file__).parents[3] / "docs" / "datasets.md").read_text("utf-8")
# The steps that clean stand on docs/cleaning.md, the keys of a source on docs/sources.md.
STEPS = [
    step
    for step in typing.get_args(typing.get_args(StepSpec)[0])
    if not step.__module__.startswith("espalier.data.clean.")
]
TASKS = typing.get_args(typing.get_args(TaskSpec)[0])


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    loaded: dict[str, Any] = YAML(typ="safe").load(block)
    return loaded


def test_the_recipe_of_the_page_is_one(recipe: dict[str, Any]) -> None:
    assert DataSpec.model_validate(recipe).name == "support"


def test_the_recipe_of_the_page_shows_the_defaults(recipe: dict[str, Any]) -> None:
    spec = DataSpec.model_validate(recipe)
    bare = DataSpec.model_validate({"name": "support", "task": recipe["task"], "source": {"path": "tickets"}})
    named = [step.model_copy(update={"names": ""}) if step.step == "redact" else step for step in spec.steps]
    assert spec.model_copy(update={"steps": tuple(named)}) == bare


@pytest.mark.parametrize("model", [DataSpec, SplitSpec, LeakSpec, *STEPS], ids=lambda model: model.__name__)
def test_every_key_stands_on_the_page_and_has_a_description(model: type[BaseModel]) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    for name, field in model.model_fields.items():
        assert re.search(rf"\b{name}:", block), f"{name} is not in the page's recipe"
        nested = name in ("step", "source", "split", "leaks")
        assert nested or field.description, f"{model.__name__}.{name} has no description"


def test_every_task_stands_on_the_page() -> None:
    for task in TASKS:
        assert f"| `{task.model_fields['kind'].default}` |" in PAGE
