"""docs/tasks.md and docs/formats.md say what there is, and their recipes are recipes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from ruamel.yaml import YAML

from espalier.data.conformance.limits import LIMITS, READ_ON
from espalier.data.formats.format import FORMATS
from espalier.data.tasks.specs import TaskSpec, list_specs

DOCS = Path(__file__).parents[4] / "docs"
TASKS, PAGE = (DOCS / "tasks.md").read_text(), (DOCS / "formats.md").read_text()
SNIPPETS = re.findall(r"```yaml\n(.*?)```", TASKS, re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_each_task_on_the_page_is_a_task(snippet: str) -> None:
    task: Any = YAML(typ="safe").load(snippet)["task"]
    assert TypeAdapter(TaskSpec).validate_python(task).kind == task["kind"]


def test_every_kind_every_format_and_every_target_is_on_its_page() -> None:
    assert all(f"| `{kind}` |" in TASKS for kind in list_specs())
    assert all(f"| `{name}` |" in PAGE for name in FORMATS)
    assert re.findall(r"^\| `(\w+:[\w.-]+)` \|", PAGE, re.MULTILINE) == list(LIMITS) and READ_ON in PAGE


@pytest.mark.parametrize("target", LIMITS)
def test_the_page_tells_the_figures_that_are_checked(target: str) -> None:
    limits = LIMITS[target]
    line = next(line for line in PAGE.splitlines() if line.startswith(f"| `{target}` |"))
    if "the same" not in line:
        figures = (limits.train_records[1], limits.validation_records[1], limits.record_tokens, limits.record_chars)
        assert all(f"{figure:,}" in line for figure in figures if figure)
    assert all(name in line for name in limits.formats)
