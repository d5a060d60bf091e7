"""Rows of a table -> record batches of `flow.batch.SCHEMA`, columns built with Arrow rather than documents one by one.

A column called `text` (or the one that is asked for) is the text and the others are tags; without one, the text is a
line `column: value` for each column that is not empty. Short values are tags in either case. Keeps watch over the
columns' types along the file. Knows no format.

Legend: n = rows given at a time, c = columns that become tags.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from espalier.data.flow.batch import CONVERSATIONS, MESSAGE, SCHEMA, SPAN, TAGS
from espalier.data.readers.findings import Findings
from espalier.data.readers.problem import Problem
from espalier.data.readers.source import suffix_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEXT = "text"
MAX_TAG_CHARS = 80
MAX_ID_CHARS = 1_000
MAX_CELLS = 1 << 22  # rows times columns of one batch: rows that share no columns are cut into smaller ones
MAX_KNOWN_COLUMNS = 1_000  # whose types are watched; beyond, names are data
LATE_ROWS = 1_000  # a column that appears after so many rows was hardly meant to
_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, default=str)
_TYPES: dict[type, str] = {str: "text", int: "number", float: "number", bool: "boolean", list: "array", dict: "object"}


@dataclass(slots=True)
class Place:
    """Where rows stand in their file."""

    numbers: NDArray[np.int64]  # (n,) of the row among the file's rows, from 1
    lines: NDArray[np.int64]  # (n,) physical line it begins on, from 1
    starts: NDArray[np.int64]  # (n,) offset in bytes
    ends: NDArray[np.int64]  # (n,) exclusive

    def keep(self, mask: NDArray[np.bool_] | slice) -> Place:
        """The places of some rows. mask (n,)"""
        return Place(self.numbers[mask], self.lines[mask], self.starts[mask], self.ends[mask])


@dataclass(slots=True)
class RowBatches:
    """Turns the rows of one file into batches; knows which types its columns had so far."""

    findings: Findings
    rows: int = 0  # given so far
    _types: dict[str, tuple[str, int]] = field(default_factory=dict)  # column -> its type, the line it came first

    def build(
        self, rows: Sequence[Mapping[str, Any]], place: Place, raw: Sequence[bytes] | None = None
    ) -> Iterator[pa.RecordBatch | Problem]:
        """The batch of n rows, after the problems found in them. `raw` is each row as JSON, where it is at hand."""
        if not rows:
            return
        names = list(dict.fromkeys(name for row in rows for name in row))
        if len(rows) > 1 and len(rows) * len(names) > MAX_CELLS:
            half = len(rows) // 2
            for part in (slice(None, half), slice(half, None)):
                yield from self.build(rows[part], place.keep(part), None if raw is None else raw[part])
            return
        columns = {name: [row.get(name) for row in rows] for name in names}
        odd = np.zeros(len(rows), bool)
        yield from self._check_types(columns, place, odd)
        self.rows += len(rows)
        text, missing = self._texts(rows, columns, odd)
        if missing.any():
            yield from self._report_missing(place, missing)
        keep = ~(odd | missing)
        batch = self._assemble(rows, columns, text, place, raw)
        if keep.all():
            yield batch
        elif keep.any():
            yield batch.filter(pa.array(keep))

    def _check_types(self, columns: dict[str, list[Any]], place: Place, odd: NDArray[np.bool_]) -> Iterator[Problem]:
        for name, values in columns.items():
            types = {_TYPES.get(kind, "text") for kind in set(map(type, values)) - {type(None)}}
            if not types:
                continue
            if name in self._types:
                known, line = self._types[name]
            else:
                first = next(at for at, value in enumerate(values) if value is not None)
                known, line = _TYPES.get(type(values[first]), "text"), int(place.lines[first])
                if len(self._types) <= MAX_KNOWN_COLUMNS:
                    self._types[name] = known, line
                if self.rows + first >= LATE_ROWS and len(self._types) <= MAX_KNOWN_COLUMNS:
                    message = f"column {name[:60]!r} appears here first, after {self.rows + first} rows"
                    yield self.findings.find("mixed_schema", line, message)
            for strange in sorted(types - {known}):
                where = [at for at, value in enumerate(values) if _is_type(value, strange)]
                message = f"column {name[:60]!r} is {strange} here, {known} on line {line}"
                problem = self.findings.find("mixed_schema", int(place.lines[where[0]]), message, len(where))
                odd[where] |= problem.action == "skip"
                yield problem

    def _texts(
        self, rows: Sequence[Mapping[str, Any]], columns: dict[str, list[Any]], odd: NDArray[np.bool_]
    ) -> tuple[list[str], NDArray[np.bool_]]:
        """The text of each row, and which rows have none. (n,) both"""
        options = self.findings.options
        missing = np.zeros(len(rows), bool)
        if options.keep_rows:
            if options.text:
                missing |= [_is_blank(value) for value in columns.get(options.text, [None] * len(rows))]
            return [""] * len(rows), missing & ~odd
        values = columns.get(options.text or TEXT)
        if values is None:
            texts = [""] * len(rows)
        elif set(map(type, values)) == {str}:
            texts = values
        else:
            texts = [value if type(value) is str else flatten(value) for value in values]
        if not all(texts) or any(map(str.isspace, texts)):
            texts = list(texts)
            for at, text in enumerate(texts):
                if not text or (options.text and text.isspace()):
                    texts[at] = "" if options.text else _join(rows[at])
                    missing[at] = not texts[at]
        return texts, missing & ~odd

    def _report_missing(self, place: Place, missing: NDArray[np.bool_]) -> Iterator[Problem]:
        column = self.findings.options.text
        message = f"no text in column {column[:60]!r}" if column else "an empty row"
        for line in place.lines[missing].tolist():
            yield self.findings.find("missing_text", line, message)

    def _assemble(
        self,
        rows: Sequence[Mapping[str, Any]],
        columns: dict[str, list[Any]],
        texts: list[str],
        place: Place,
        raw: Sequence[bytes] | None,
    ) -> pa.RecordBatch:
        source, options, size = self.findings.source, self.findings.options, len(rows)
        shown = {name: columns[name] for name in columns if name == options.id} if options.keep_rows else columns
        none = pa.ListArray.from_arrays(pa.array(np.zeros(size + 1, np.int32)), pa.array([], MESSAGE))
        made = {
            "id": pc.binary_join_element_wise(
                source.sha256[:16], pc.cast(pa.array(place.numbers), pa.string()), pa.scalar(".")
            ),
            "text": pa.array(texts, pa.large_string()),
            "spans": _spans(source.sha256, source.uri, place),
            "tags": self._tags(shown, place),
            "row": _row_json(rows, raw) if options.keep_rows else pa.repeat(pa.scalar("", pa.large_string()), size),
            **dict.fromkeys(CONVERSATIONS, none),
        }
        return pa.RecordBatch.from_arrays([made[name] for name in SCHEMA.names], schema=SCHEMA)

    def _tags(self, columns: dict[str, list[Any]], place: Place) -> pa.MapArray:
        options, size = self.findings.options, len(place.lines)
        text = options.text or TEXT
        arrays: dict[str, pa.Array] = {}
        for name in [name for name in columns if name != text][: options.max_tags] + [options.id] * bool(options.id):
            if name in columns:
                most = MAX_ID_CHARS if name == options.id else MAX_TAG_CHARS
                arrays[name] = _short(columns[name], most)
        form = pa.scalar(suffix_of(self.findings.source.uri))
        arrays["format"] = pc.coalesce(arrays["format"], form) if "format" in arrays else pa.repeat(form, size)
        arrays["line"] = pc.cast(pa.array(place.lines), pa.string())
        if self.findings.source.licence:
            arrays["licence"] = pa.repeat(pa.scalar(self.findings.source.licence), size)
        return interleave(arrays)


def interleave(arrays: Mapping[str, pa.StringArray]) -> pa.MapArray:
    """Columns (c of n) as one map column (n,), keys sorted; a null is no key."""
    names = sorted(arrays)
    size = len(arrays[names[0]])
    valid = np.stack([arrays[name].is_valid().to_numpy(zero_copy_only=False) for name in names], axis=1)  # (n, c)
    row, column = np.nonzero(valid)
    items = pa.concat_arrays([arrays[name] for name in names]).take(pa.array(column * size + row))
    keys = pa.array(names, pa.string()).take(pa.array(column))
    offsets = np.concatenate([[0], np.cumsum(valid.sum(axis=1))]).astype(np.int32)
    return pa.MapArray.from_arrays(pa.array(offsets), keys, items).cast(TAGS)


def flatten(value: Any) -> str:
    """A value as text: itself, nothing for null, else its JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if type(value) is int or (type(value) is float and isfinite(value)):
        return repr(value)  # as JSON writes it
    return _ENCODER.encode(value)


def _short(values: list[Any], most_chars: int) -> pa.StringArray:
    """Values of 1 to `most_chars` characters; null for the others. (n,)"""
    plain = set(map(type, values)) <= {str, type(None)}
    given = values if plain else [value if type(value) is str else flatten(value) for value in values]
    texts = [value if value and len(value) <= most_chars else None for value in given]
    return pa.array(texts, pa.string())


def _spans(blob: str, uri: str, place: Place) -> pa.ListArray:
    size = len(place.lines)
    arrays = [
        pa.repeat(pa.scalar(blob), size),
        pa.repeat(pa.scalar(uri), size),
        pa.repeat(pa.scalar(1, pa.int32()), size),
        pa.array(place.starts),
        pa.array(place.ends),
    ]
    spans = pa.StructArray.from_arrays(arrays, fields=list(SPAN))
    return pa.ListArray.from_arrays(pa.array(np.arange(size + 1, dtype=np.int32)), spans)


def _row_json(rows: Sequence[Mapping[str, Any]], raw: Sequence[bytes] | None) -> pa.LargeStringArray:
    lines = raw if raw is not None else [dump_row(row) for row in rows]
    return pa.array(lines, pa.large_binary()).view(pa.large_string())


def dump_row(row: Mapping[str, Any]) -> bytes:
    """A row as one line of JSON."""
    import orjson

    try:
        return orjson.dumps(row, default=str)
    except (TypeError, RecursionError):  # an integer of more than 64 bits
        return json.dumps(row, ensure_ascii=False, default=str).encode("utf-8", "replace")


def _join(row: Mapping[str, Any]) -> str:
    flat = ((name, flatten(value)) for name, value in row.items())
    return "\n".join(f"{name}: {value}" for name, value in flat if value.strip())


def _is_blank(value: Any) -> bool:
    return not flatten(value).strip()


def _is_type(value: Any, name: str) -> bool:
    return value is not None and _TYPES.get(type(value), "text") == name
