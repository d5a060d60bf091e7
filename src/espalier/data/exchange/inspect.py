"""Looks at a file people have: of which format its rows are, why that is thought, and the recipe that reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from espalier.core.errors import InvalidInput, NotFound
from espalier.data.exchange.report import Inspection
from espalier.data.formats.detect import ROWS, Detection, detect_format
from espalier.data.formats.format import find_format
from espalier.data.readers.folder import find_sources
from espalier.data.readers.options import ReadOptions
from espalier.data.readers.problem import Problem
from espalier.data.readers.reading import read_source
from espalier.data.readers.source import SourceFile, hash_file

# What a folder of rows may hold beside them.
_NO_DATA = ("README*", "SOURCE*", "LICEN*", "COPYING*", "*.md")
_TABLES = frozenset(
    f"{kind}{packing}"
    for kind in ("csv", "tsv", "json", "jsonl", "ndjson", "parquet")
    for packing in ("", ".gz", ".bz2", ".xz", ".zst")
)


def inspect_source(path: Path) -> Inspection:
    """Look at the first rows of a file, or of the first table in a folder.

    Raises NotFound, InvalidInput when it holds no rows, or rows of no one format (the message lists the candidates).
    """
    source, rows = _find_rows(path)
    try:
        detection = detect_format(rows)
    except InvalidInput as error:
        raise InvalidInput(error.message, where=source.uri, hint=error.hint) from None
    return Inspection(uri=source.uri, detection=detection, recipe=write_recipe(path, detection))


def read_rows(source: SourceFile, problems: list[str], limit: int = ROWS) -> Iterator[dict[str, Any]]:
    """The first rows of a table; what is wrong on the way goes to `problems`. Raises InvalidInput."""
    count = 0
    for item in read_source(source, ReadOptions(keep_rows=True)):
        if isinstance(item, Problem):
            if item.action == "refuse":
                raise item.to_error()
            problems.append(f"{item.uri}:{item.line}: {item.message}" if item.line else f"{item.uri}: {item.message}")
            continue
        for text in item.column("row").to_pylist():
            if text:
                yield json.loads(text)
                count += 1
            if count == limit:
                return


def write_recipe(path: Path, detection: Detection) -> str:
    """A recipe that reads such rows."""
    tasks = {
        "conversations": f"{{kind: chat, format: {detection.format}}}",
        "pairs": f"{{kind: preference, format: {detection.format}}}",
        "labels": "{kind: classification}",
        "text": "{kind: text, text: text}",
    }
    task = tasks[find_format(detection.format).holds]
    if len(detection.labels) == 1:
        task = f"{{kind: classification, label: {detection.labels[0]}}}"
    stem = path.name.split(".")[0].lower()
    name = "".join(letter if letter.isalnum() else "-" for letter in stem).strip("-") or "dataset"
    return f"name: {name}\nsource: {{path: {path.name}}}\ntask: {task}\n"


def _find_rows(path: Path) -> tuple[SourceFile, list[dict[str, Any]]]:
    """The file, or the first of a folder's that has rows, with its first ones."""
    if not path.exists():
        raise NotFound(f"no file or folder {path}", hint="check the path")
    if path.is_file():
        sources = [SourceFile(path, path.name, hash_file(path))]
    else:
        sources, _ = find_sources(path, suffixes=_TABLES, exclude=_NO_DATA)
    problems: list[str] = []
    for source in sources:
        if rows := list(read_rows(source, problems)):
            return source, rows
    raise InvalidInput(
        "; ".join(["no row in it", *problems[:3]]),
        where=path.name,
        hint="rows of JSON lines, JSON, CSV or Parquet are wanted",
    )
