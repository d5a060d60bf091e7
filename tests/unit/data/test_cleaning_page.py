"""docs/cleaning.md is held to the code: it shows every parameter of every cleaning step, with its default."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from espalier.core.plugins import load_plugin
from espalier.data.clean.quality import FineWebRules
from espalier.data.spec import DataSpec
from espalier.data.steps import list_specs

PAGE = (Path(__file__).parents[3] / "docs" / "cleaning.md").read_text("utf-8")
EXAMPLE, STEPS, FINEWEB = (YAML(typ="safe").load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
OURS = sorted(name for name, spec in list_specs().items() if spec.__module__.startswith("espalier.data.clean."))


def test_the_page_has_each_step_once() -> None:
    assert sorted(step["step"] for step in STEPS) == OURS


@pytest.mark.parametrize("shown", STEPS, ids=lambda step: str(step["step"]))
def test_a_step_is_shown_with_every_parameter_and_its_default(shown: dict[str, Any]) -> None:
    model: type[BaseModel] = load_plugin("espalier.cleaners", shown["step"]).spec
    spec = model.model_validate(shown)
    assert set(shown) == set(model.model_fields)
    for name, field in model.model_fields.items():
        assert field.is_required() or getattr(spec, name) == field.default or name == "step", name
        assert field.description or name == "step", name
        rules = getattr(spec, name)
        if isinstance(rules, BaseModel):
            assert set(shown[name]) == set(type(rules).model_fields) and rules == type(rules)()


def test_the_rules_for_web_pages_are_the_defaults() -> None:
    assert set(FINEWEB["fineweb"]) == set(FineWebRules.model_fields)
    assert FineWebRules.model_validate(FINEWEB["fineweb"]) == FineWebRules()


def test_the_example_is_a_recipe() -> None:
    assert [step.step for step in DataSpec.model_validate(EXAMPLE).steps][-2:] == ["python", "chunk"]  # type: ignore[attr-defined]
