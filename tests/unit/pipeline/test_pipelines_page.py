"""docs/pipelines.md is held to the code: its recipe is read, its step runs, its table is complete."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from espalier.pipeline.graph import Node, load_pipeline

PAGE = (Path(__file__).parents[3] / "docs" / "pipelines.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found
    return found[1]


def test_its_recipe_is_a_pipeline(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(block("yaml"))
    assert load_pipeline(tmp_path / "p.yaml").order() == ["dataset", "tuned", "checked"]


def test_its_table_names_every_key_of_a_step() -> None:
    keys = {field.alias or name for name, field in Node.model_fields.items()}
    assert keys == set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))


def test_its_step_runs_in_a_pipeline(project: Any) -> None:
    project.write("toy_counts.py", block("python"))
    project.edit("toy_steps.py", '"rows.json").write_text(json.dumps(rows))', '"rows.txt").write_text(" ".join(rows))')
    result = project.run()
    assert result.nodes["count"].metrics == {"total": 5.0}
    assert (project.store.artifacts.materialise(result.output("count", "report")) / "total.txt").read_text() == "5"
