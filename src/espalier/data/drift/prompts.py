"""Live prompts from a file: JSON lines, JSON, CSV or Parquet, compressed or not; a text column, or any known format.

Knows rows; what is measured on them is another module's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from espalier.core.errors import InvalidInput, NotFound, did_you_mean
from espalier.core.types import Example, Message
from espalier.data.exchange.inspect import read_rows
from espalier.data.formats.detect import ROWS, detect_format
from espalier.data.formats.format import decode_row
from espalier.data.formats.turns import read_turns
from espalier.data.readers.source import SourceFile

_NAMES = ("prompt", "question", "input", "text", "query")  # a column so called is the prompt where no format is known
_MAX_VALUE_CHARS = 200
_TOLD = 3


def read_prompts(path: Path, column: str = "", notes: list[str] | None = None) -> Iterator[Example]:
    """Each row as an example: what was asked, the other short columns as tags, `ROW` as id.

    column: the text column; without one the rows may be chats, a format of docs/formats.md, or have a column prompt,
    question, input, text or query. Rows that cannot be read are left out; `notes` is told how many.

    Raises NotFound, and InvalidInput when no row can be read.
    """
    if not path.is_file():
        raise NotFound(f"no file {path}", hint="a .jsonl, .json, .csv or .parquet file of prompts is wanted")
    problems: list[str] = []
    # The digest would only name documents, which are not kept.
    rows = read_rows(SourceFile(path, path.name, "0" * 64), problems, limit=-1)
    first = list(itertools.islice(rows, ROWS))
    if not first:
        raise InvalidInput("; ".join(["no row in it", *problems[:_TOLD]]), where=path.name, hint="check the file")
    decode = _by_column(column, first, path) if column else _find_decoder(first, path)
    good = 0
    for number, row in enumerate(itertools.chain(first, rows), 1):
        try:
            example = decode(row)
        except InvalidInput as error:
            problems.append(f"{path.name}: row {number}: {error.message}")
            continue
        good += 1
        example.id = str(number)
        example.tags = {**_tags_of(row), **example.tags}
        yield example
    if not good:
        raise InvalidInput(f"no row can be read: {problems[0]}", where=path.name, hint="name the text column")
    if problems and notes is not None:
        notes.append(f"{len(problems)} problems in {path.name}, the first: {'; '.join(problems[:_TOLD])}")


def _by_column(column: str, rows: list[dict[str, Any]], path: Path) -> Callable[[Mapping[str, Any]], Example]:
    names = dict.fromkeys(name for row in rows for name in row)
    if column not in names:
        hint = did_you_mean(column, names)
        raise InvalidInput(f"there is no column {column!r} in the first {len(rows)} rows", where=path.name, hint=hint)

    def decode(row: Mapping[str, Any]) -> Example:
        value = row.get(column)
        if not isinstance(value, str):
            raise InvalidInput(f"`{column}` is no text")
        return Example("", text=value)

    return decode


def _find_decoder(rows: list[dict[str, Any]], path: Path) -> Callable[[Mapping[str, Any]], Example]:
    """Chats first: a log of prompts ends with the user's turn, which formats for training refuse."""
    if all(isinstance(row.get("messages"), list) for row in rows):
        return _decode_chat
    try:
        name = detect_format(rows).format
    except InvalidInput as error:
        names = [name for name in _NAMES if all(isinstance(row.get(name), str) for row in rows)]
        if not names:
            raise InvalidInput(error.message, where=path.name, hint="name the text column with --column") from None
        return _by_column(names[0], rows, path)

    def decode(row: Mapping[str, Any]) -> Example:
        found = decode_row(row, name)
        return Example("", found.messages, found.text if not found.messages else "", found.chosen, tags=found.tags)

    return decode


def _decode_chat(row: Mapping[str, Any]) -> Example:
    turns: list[Message] = read_turns(row.get("messages"), "messages")
    return Example("", turns)


def _tags_of(row: Mapping[str, Any]) -> dict[str, str]:
    short = {name: str(value) for name, value in row.items() if isinstance(value, str | int | bool)}
    return {name: value for name, value in short.items() if len(value) <= _MAX_VALUE_CHARS}
