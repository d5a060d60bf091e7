"""docs/sources.md is held to the code: its keys and defaults are the spec's, its problems are those there are."""

from __future__ import annotations

import re
from pathlib import Path

from ruamel.yaml import YAML

from espalier.data.readers.plugin import known_suffixes
from espalier.data.readers.problem import ProblemPolicy
from espalier.data.readers.source import SourceFile, hash_file
from espalier.data.readers.spec import SourceSpec

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "sources.md").read_text("utf-8")
READING = (DOCS / "reading.md").read_text("utf-8")
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
    code = re.findall(r"```python\n(.*?)```", READING, re.DOTALL)[-1]
    names: dict[str, object] = {}
    exec(code, names)
    path = tmp_path / "a.srt"
    path.write_bytes(b"1\n00:00:01,000 --> 00:00:02,000\nGood morning.\n")
    (document,) = names["read_srt"](SourceFile(path, "a.srt", hash_file(path)))  # type: ignore[operator]
    assert document.text == "Good morning."


def test_the_tables_named_have_readers() -> None:
    assert {"jsonl", "json", "csv", "tsv", "parquet"} <= known_suffixes()
