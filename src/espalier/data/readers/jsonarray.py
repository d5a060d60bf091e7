"""JSON files: an array of objects is a table, read one object at a time whatever the file's size.

One object that holds a single list of objects is that table; JSON lines under the name `.json` are read as such; any
other JSON value is one document, its text as it stands.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from espalier.core.errors import InvalidInput
from espalier.core.types import Document
from espalier.data.flow.batch import to_batch
from espalier.data.readers.findings import Findings, each_text, heal
from espalier.data.readers.jsonl import read_jsonl
from espalier.data.readers.lines import LineSource, Watch
from espalier.data.readers.options import ReadOptions
from espalier.data.readers.plain import decode
from espalier.data.readers.problem import Problem
from espalier.data.readers.rowbatch import Place, RowBatches
from espalier.data.readers.source import SourceFile
from espalier.data.readers.table import TableReader

_PIECE_BYTES = 4 << 20
_BATCH_ROWS = 1 << 14
_BLANK = " \t\n\r"


def read_json(
    source: SourceFile, options: ReadOptions, watch: Watch | None = None
) -> Iterator[pa.RecordBatch | Problem]:
    """Batches of rows, or one document."""
    findings = Findings(source, options)
    with closing(LineSource(findings, watch)) as stream:
        if stream.stopped:
            yield from stream.problems
            return
        window = _Window(stream)
        if window.peek() == "[":
            yield from stream.problems
            yield from _read_array(window, findings)
            return
    yield from _read_object(source, options, watch)


@dataclass(slots=True)
class _Window:
    """The part of a text that is being read, with its place in the file."""

    stream: LineSource
    text: str = ""
    at: int = 0
    line: int = 1
    offset: int = 0  # in bytes, of `at`
    ended: bool = False
    escaped: bool = False  # whether there are escapes in `text`
    _decoder: Any = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))

    def fill(self) -> bool:
        """Read on; False at the end."""
        data = self.stream.read(_PIECE_BYTES)
        self.ended = not data
        self.text = self.text[self.at :] + self._decoder.decode(data, self.ended)
        self.at = 0
        self.escaped = "\\u" in self.text
        return not self.ended

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in _BLANK:
                self.pass_to(self.at + 1)
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.fill():
                return ""

    def pass_to(self, end: int) -> None:
        """Go on to `end`, an index of `text`."""
        passed = self.text[self.at : end]
        self.line += passed.count("\n")
        self.offset += len(passed) if passed.isascii() else len(passed.encode("utf-8", "replace"))
        self.at = end


def _read_array(window: _Window, findings: Findings) -> Iterator[pa.RecordBatch | Problem]:
    batches = RowBatches(findings)
    rows: list[dict[str, Any]] = []
    places: list[tuple[int, int, int, int]] = []
    scan = json.JSONDecoder().raw_decode
    window.pass_to(window.at + 1)
    number = size_bytes = 0
    wrong = ""
    while (char := window.peek()) not in ("]", ""):
        if char == "," and number:
            window.pass_to(window.at + 1)
            window.peek()
        number, line, start = number + 1, window.line, window.offset
        value, end, wrong = _scan_value(window, scan, findings.options.max_line_bytes)
        if wrong:
            break
        window.pass_to(end)
        if not isinstance(value, dict):
            yield findings.find("not_object", line, f"a JSON object is wanted, not {type(value).__name__}")
            continue
        rows.append(each_text(value, heal) if _needs_healing(window, value) else value)
        places.append((number, line, start, window.offset))
        size_bytes += window.offset - start
        if size_bytes >= _PIECE_BYTES or len(rows) >= _BATCH_ROWS:
            window.stream.rows = number
            yield from batches.build(rows, Place(*np.array(places, np.int64).T))
            window.stream.tell_progress()
            rows, places, size_bytes = [], [], 0
    if rows:
        yield from batches.build(rows, Place(*np.array(places, np.int64).T))
    if wrong or not char:
        message = f"{wrong or 'the array does not end'}; the rest of the file was not read"
        yield findings.find("broken_line", window.line, message)
    window.stream.tell_progress()


def _scan_value(window: _Window, scan: Any, max_bytes: int) -> tuple[Any, int, str]:
    """The value at the window's place, the index behind it, and what is wrong with it."""
    while True:
        try:
            value, end = scan(window.text, window.at)
            return value, end, ""
        except json.JSONDecodeError as error:
            wrong = f"not JSON: {error.msg}"
        except (ValueError, RecursionError) as error:
            return None, 0, f"not JSON: {type(error).__name__}: {error}"[:200]
        if len(window.text) - window.at > max_bytes:
            return None, 0, f"{wrong}, within {max_bytes} bytes"
        if not window.fill():
            return None, 0, wrong


def _needs_healing(window: _Window, value: dict[str, Any]) -> bool:
    # Escapes are the only way a NUL or half a surrogate pair can stand in a JSON text that was decoded.
    return window.escaped and each_text(value, heal) != value


def _read_object(source: SourceFile, options: ReadOptions, watch: Watch | None) -> Iterator[pa.RecordBatch | Problem]:
    first = _first_line(source)
    if _is_object(first) and not _has_one_line(source, len(first)):
        yield from read_jsonl(source, options, watch)
        return
    text = decode(source.read_bytes())
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"not JSON: {error}"[:200]) from None
    rows = _table_of(value)
    if rows:
        count = len(rows)
        ones = np.ones(count, np.int64)
        place = Place(np.arange(1, count + 1), ones, 0 * ones, 0 * ones)
        yield from RowBatches(Findings(source, options)).build([each_text(row, heal) for row in rows], place)
        return
    yield to_batch([Document(source.document_id(1), heal(text), source.span(end=len(text)), {"format": "json"})])


def _table_of(value: Any) -> list[dict[str, Any]]:
    """The one list of objects among an object's values; empty when there is none, or more than one."""
    if not isinstance(value, dict):
        return []
    lists = [item for item in value.values() if isinstance(item, list) and item]
    tables = [item for item in lists if all(isinstance(row, dict) for row in item)]
    return tables[0] if len(tables) == 1 else []


def _first_line(source: SourceFile) -> bytes:
    with source.open() as stream:
        return stream.read(_PIECE_BYTES).lstrip().split(b"\n", 1)[0]


def _has_one_line(source: SourceFile, first_bytes: int) -> bool:
    with source.open() as stream:
        return not stream.read(_PIECE_BYTES).lstrip()[first_bytes:].strip()


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


JSON = TableReader(read_json, version=1)
