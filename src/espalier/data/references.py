"""The texts of an evaluation set: what a model is measured by, and must not have been trained on.

A set is a table, a document or a folder of either in any format that can be read, or a dataset version (its Parquet
files are tables too). Every text in a row counts by itself: a question that stands in a training text is a leak,
whatever answer follows it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from espalier.core.errors import NotFound
from espalier.data.dedup.known import name_version
from espalier.data.flow.batch import to_documents
from espalier.data.readers.folder import find_sources
from espalier.data.readers.options import ReadOptions
from espalier.data.readers.plugin import known_suffixes
from espalier.data.readers.problem import Problem
from espalier.data.readers.reading import read_source
from espalier.data.readers.source import SourceFile

# What stands beside a set and is no part of it.
_BESIDE = ("SOURCE.md", "README*", "LICENSE*", "LICENCE*", "card.md", "manifest.json", "exclusions*", "problems.jsonl")
# Fields of our own tables that are about a row.
_ABOUT = frozenset({"id", "documents", "tags", "spans", "split", "group", "role"})
_MAX_FILE_BYTES = 8 << 30


def read_references(path: Path) -> Iterator[tuple[str, str]]:
    """(where, text) of each text of an evaluation set; `where` is FILE:LINE of a table's row, else FILE.

    Raises NotFound where there is nothing, InvalidInput for a file that cannot be read: a set that is read in part
    would let leaks through.
    """
    if not path.exists():
        raise NotFound(f"no evaluation set at {path}", where="leaks.against", hint="check the path")
    sources, skipped = find_sources(path, suffixes=known_suffixes(), exclude=_BESIDE, max_file_bytes=_MAX_FILE_BYTES)
    for item in skipped:
        if item.reason.startswith("unreadable"):
            raise Problem("unreadable", item.uri, 0, item.reason, "refuse").to_error()
    name = name_version(path) if path.is_dir() else ""
    for source in sources:
        for where, text in _read_file(source):
            yield f"{name}/{where}" if name else where, text


def _read_file(source: SourceFile) -> Iterator[tuple[str, str]]:
    for item in read_source(source, ReadOptions(keep_rows=True)):
        if isinstance(item, Problem):
            if item.action != "repair":
                raise item.to_error()
            continue
        rows = item.column("row").to_pylist()
        for document, row in zip(to_documents(item), rows, strict=True):
            where = f"{source.uri}:{document.tags['line']}" if "line" in document.tags else source.uri
            for text in _list_texts(json.loads(row)) if row else (document.text,):
                yield where, text


def _list_texts(value: Any) -> Iterator[str]:
    """Every string in a row's JSON, but for what is about the row."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _list_texts(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name not in _ABOUT:
                yield from _list_texts(item)
