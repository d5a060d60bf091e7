"""docs/sources.md is held to the code: its keys and defaults are the spec's, its problems are those there are."""

from __future__ import annotations

import re
from pathlib import Path

from ruamel.yaml import YAML

from espalier.data.readers.plugin import known_suffixes
from espalier.data.readers.problem import ProblemPolicy
from espalier.data.readers.source import SourceFile, hash_file
from espalier.data.readers.spec import SourceSpec

PAGE = (Path(__file__).parents[3] / "docs" / "sources.md").read_text("utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def load(block: str) -> SourceSpec:
    return SourceSpec.model_validate(YAML(typ="safe").load(block)["source"])


def test_every_key_stands_there_with_its_default() -> None:
    block = BLOCKS[-1]
    assert load(block) == SourceSpec()
    assert set(YAML(typ="safe").load(block)["source"]) == set(SourceSpec.model_fields)


def test_every_key_and_problem_has_a_description() -> None:
    for model in (SourceSpec, ProblemPolicy):
        assert [name for name, field in model.model_fields.items() if not field.description] == []


def test_the_first_recipe_is_one() -> None:
    spec = load(BLOCKS[0])
    assert len(spec.paths) == 4 and spec.problems.broken_line == "refuse"


def test_every_problem_stands_there_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (refuse|skip|repair) \|", PAGE, re.MULTILINE))
    assert rows == ProblemPolicy().model_dump()


def test_the_reader_shown_reads(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    path = tmp_path / "a.log"
    path.write_bytes(b"line\n")
    (document,) = names["read_log"](SourceFile(path, "a.log", hash_file(path)))  # type: ignore[operator]
    assert document.text == "line\n"


def test_the_tables_named_have_readers() -> None:
    assert {"jsonl", "json", "csv", "tsv", "parquet"} <= known_suffixes()
