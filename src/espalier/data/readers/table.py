"""CSV and JSON lines: one document a row. A bad row becomes a dropped document that names file and line.

A column called `text` is the text and the others are tags; without one, the text is a line `column: value` for each
column that is not empty. Short values are tags in either case.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

from espalier.core.errors import InvalidInput
from espalier.core.types import Document
from espalier.data.readers.plain import decode
from espalier.data.readers.source import SourceFile

TEXT = "text"
MAX_TAG_CHARS = 80
_DELIMITERS = ",;\t|"


def read_csv(source: SourceFile) -> Iterator[Document]:
    """A document for each row under the header line. Raises InvalidInput when the header is unusable."""
    lines = _Lines(decode(source.path.read_bytes()))
    rows = csv.reader(lines, delimiter=guess_delimiter(lines.text), strict=True)
    try:
        header = [name.strip() for name in next(rows, [])]
    except csv.Error as error:
        raise InvalidInput(f"line 1: {error}") from None
    if not header or len(set(header)) < len(header) or not all(header):
        raise InvalidInput("line 1: the header needs a different, non-empty name for each column")
    number = 0
    while True:
        first_line, start = rows.line_num + 1, lines.offset
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            number += 1
            reason = f"unreadable: {source.uri}:{first_line}: {error}; the rest of the file was not read"
            yield source.dropped(number, reason, start, len(lines.text))
            return
        if not any(row):
            continue
        number += 1
        if len(row) != len(header):
            reason = f"unreadable: {source.uri}:{first_line}: {len(row)} fields under a header of {len(header)}"
            yield source.dropped(number, reason, start, lines.offset)
            continue
        yield _to_document(source, number, dict(zip(header, row, strict=True)), first_line, (start, lines.offset))


def read_jsonl(source: SourceFile) -> Iterator[Document]:
    """A document for each line that is a JSON object."""
    offset = number = 0
    for line_number, line in enumerate(io.StringIO(decode(source.path.read_bytes()), newline="\n"), 1):
        start, offset = offset, offset + len(line)
        if not line.strip():
            continue
        number += 1
        try:
            fields = parse_object(line)
        except InvalidInput as error:
            yield source.dropped(number, f"unreadable: {source.uri}:{line_number}: {error.message}", start, offset)
            continue
        flat = {name: _flatten(value) for name, value in fields.items()}
        yield _to_document(source, number, flat, line_number, (start, offset))


def parse_object(line: str) -> dict[str, Any]:
    """One line of JSON lines; raises InvalidInput unless it is a JSON object."""
    try:
        value = json.loads(line.rstrip("\r\n"))
    except json.JSONDecodeError as error:
        raise InvalidInput(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise InvalidInput("not JSON: nested too deeply") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"a JSON object is wanted, not {type(value).__name__}")
    return value


def guess_delimiter(text: str) -> str:
    """The delimiter seen most often outside quotes in the first line; a comma when none is."""
    header = text.split("\n", 1)[0]
    bare = "".join(header.split('"')[::2])
    return max(_DELIMITERS, key=bare.count)


def _to_document(
    source: SourceFile, number: int, fields: Mapping[str, str], line: int, extent: tuple[int, int]
) -> Document:
    text = fields.get(TEXT) or "\n".join(f"{name}: {value}" for name, value in fields.items() if value.strip())
    tags = {name: value for name, value in fields.items() if name != TEXT and 0 < len(value) <= MAX_TAG_CHARS}
    tags["line"] = str(line)
    return Document(source.document_id(number), text, source.span(1, *extent), tags)


def _flatten(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)


class _Lines:
    """Feeds physical lines to csv and knows how far it has read, in characters."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.offset = 0
        self._stream = io.StringIO(text, newline="")

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = next(self._stream)
        self.offset += len(line)
        return line
