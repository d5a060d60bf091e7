"""docs/versions.md names commands that are there, and its example runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from espalier.core.operations import load_operations
from espalier.core.types import Example
from espalier.store.examples import write_examples

PAGE = (Path(__file__).parents[3] / "docs" / "versions.md").read_text("utf-8")


def test_every_command_on_the_page_is_an_operation_with_those_options() -> None:
    table = load_operations()
    commands = re.findall(r"^    espalier data (\w+)(.*?)(?:#|$)", PAGE, re.MULTILINE)
    assert len(commands) >= 6
    for verb, rest in commands:
        fields = table[f"datasets.{verb}"].request.model_fields
        assert {option.replace("-", "_") for option in re.findall(r"--([\w-]+)", rest)} <= set(fields)


def test_the_example_of_rows_by_number_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    made = (Example(f"ex_{n}", text=f"t{n}") for n in range(120))
    write_examples(tmp_path / "version" / "data" / "train-00000.parquet", made)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/versions.md", "exec"), {})
    assert capsys.readouterr().out.startswith("120 Example(id='ex_0'")
