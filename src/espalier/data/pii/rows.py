"""Redacts what is not a text column: table rows as JSON, and tags. Knows no kind; the redaction comes as a function.

Legend: n = rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa

# Tags that our readers write about the file itself.
_OWN_TAGS = frozenset({"format", "line", "pdf.pages", "mail.date", "mail.attachments"})
Rewrite = Callable[[pa.LargeStringArray], pa.LargeStringArray]


def gather_strings(column: pa.LargeStringArray) -> tuple[dict[int, Any], list[int], list[str]]:
    """Table rows (n,) of JSON objects: each that is one by its number, and every string in them with its row's number.

    Strings at any depth, but no keys.
    """
    held = {at: json.loads(row) for at, row in enumerate(column.to_pylist()) if row}
    owned = [(at, value) for at, row in held.items() for value in _strings(row)]
    return held, [at for at, _ in owned], [value for _, value in owned]


def rewrite_row(row: Any, renamed: Mapping[str, str]) -> bytes:
    """The row as JSON again, its strings replaced."""
    return json.dumps(_map(row, renamed), ensure_ascii=False, separators=(",", ":")).encode()


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)


def _map(value: Any, renamed: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return renamed[value]
    if isinstance(value, dict):
        return {name: _map(each, renamed) for name, each in value.items()}
    return [_map(each, renamed) for each in value] if isinstance(value, list) else value


def rewrite_tags(column: pa.MapArray, rewrite: Rewrite) -> dict[str, pa.StringArray]:
    """Tags that came from the source, where they change: name -> new values (n,), null where a row's stays."""
    rows = [dict(tags) for tags in column.to_pylist()]
    values = sorted({value for row in rows for name, value in row.items() if name not in _OWN_TAGS})
    rewritten = rewrite(pa.array(values, pa.large_string())).to_pylist()
    renamed = {old: new for old, new in zip(values, rewritten, strict=True) if old != new}
    if not renamed:
        return {}
    names = sorted({name for row in rows for name, value in row.items() if value in renamed} - _OWN_TAGS)
    return {name: pa.array([renamed.get(row.get(name, "")) for row in rows], pa.string()) for name in names}
