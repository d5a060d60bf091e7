"""Writes rows of one format into files: JSON lines, CSV or Parquet, row by row, whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from espalier.core.errors import InvalidInput
from espalier.store.disk import new_file
from espalier.store.rowgroups import open_writer

Container = Literal["jsonl", "csv", "parquet", "hf"]
Write = Callable[[Mapping[str, Any]], None]
_ROWS_IN_BATCH = 512

_TEXT = pa.string()
_TURN = pa.struct([("role", _TEXT), ("content", _TEXT), ("weight", pa.float64())])
_PLAIN_TURN = pa.struct([("role", _TEXT), ("content", _TEXT)])
_PART = pa.struct([("text", _TEXT)])
# The columns of each format, where a file wants to know them beforehand.
SCHEMAS: Mapping[str, pa.Schema] = {
    "openai-chat": pa.schema([("messages", pa.list_(_TURN))]),
    "openai-preference": pa.schema(
        [
            ("input", pa.struct([("messages", pa.list_(_PLAIN_TURN))])),
            ("preferred_output", pa.list_(_PLAIN_TURN)),
            ("non_preferred_output", pa.list_(_PLAIN_TURN)),
        ]
    ),
    "bedrock-conversation": pa.schema(
        [
            ("schemaVersion", _TEXT),
            ("system", pa.list_(_PART)),
            ("messages", pa.list_(pa.struct([("role", _TEXT), ("content", pa.list_(_PART))]))),
        ]
    ),
    "bedrock-claude": pa.schema([("system", _TEXT), ("messages", pa.list_(_PLAIN_TURN))]),
    "bedrock-completion": pa.schema([("prompt", _TEXT), ("completion", _TEXT)]),
    "sharegpt": pa.schema([("conversations", pa.list_(pa.struct([("from", _TEXT), ("value", _TEXT)])))]),
    "alpaca": pa.schema(
        [
            *((name, _TEXT) for name in ("instruction", "input", "output", "system")),
            ("history", pa.list_(pa.list_(_TEXT))),
        ]
    ),
    "completion": pa.schema([("prompt", _TEXT), ("completion", _TEXT), ("system", _TEXT)]),
    "question-answer": pa.schema([("question", _TEXT), ("answer", _TEXT)]),
    "text-label": pa.schema([("text", _TEXT), ("label", _TEXT)]),
    "text": pa.schema([("text", _TEXT)]),
    "preference": pa.schema([(name, pa.list_(_PLAIN_TURN)) for name in ("prompt", "chosen", "rejected")]),
    "kto": pa.schema([("prompt", _TEXT), ("completion", _TEXT), ("label", pa.bool_())]),
}
# Formats whose rows hold lists only where an example is more than one exchange.
_OFTEN_FLAT = ("alpaca", "preference")


def suffix_of_container(container: Container) -> str:
    """How its files' names end."""
    return {"jsonl": "jsonl", "csv": "csv", "parquet": "parquet", "hf": "parquet"}[container]


def check_container(container: Container, name: str) -> None:
    """Raises InvalidInput when the container cannot hold the format: a CSV has no lists."""
    nested = [field.name for field in SCHEMAS[name] if pa.types.is_nested(field.type)]
    if container == "csv" and nested and name not in _OFTEN_FLAT:
        raise InvalidInput(
            f"a CSV file cannot hold {name}: `{nested[0]}` is a list", hint="take jsonl, or the format completion"
        )


@contextmanager
def open_container(container: Container, name: str, path: Path) -> Iterator[Write]:
    """A function that writes one row of format `name`; the file is there, whole, once the block is left.

    Raises StorageFull, PermissionDenied; the function raises InvalidInput for a row the container cannot hold.
    """
    if container in ("parquet", "hf"):
        with _open_parquet(path, SCHEMAS[name]) as write:
            yield write
    else:
        with new_file(path) as descriptor, os.fdopen(os.dup(descriptor), "w", encoding="utf-8", newline="") as stream:
            yield _write_csv(stream, SCHEMAS[name].names) if container == "csv" else _write_jsonl(stream)


def _write_jsonl(stream: io.TextIOBase) -> Write:
    def write(row: Mapping[str, Any]) -> None:
        stream.write(json.dumps(row, ensure_ascii=False) + "\n")

    return write


def _write_csv(stream: io.TextIOBase, columns: list[str]) -> Write:
    columns = [name for name in columns if name != "history"]  # a list, where there is one
    writer = csv.writer(stream, lineterminator="\r\n")  # RFC 4180
    writer.writerow(columns)

    def write(row: Mapping[str, Any]) -> None:
        if any(isinstance(value, list | dict) for value in row.values()):
            raise InvalidInput("several turns, which a CSV file cannot hold", hint="take jsonl")
        cells = (row.get(name) for name in columns)
        writer.writerow(
            ["" if cell is None else str(cell).lower() if isinstance(cell, bool) else cell for cell in cells]
        )

    return write


@contextmanager
def _open_parquet(path: Path, schema: pa.Schema) -> Iterator[Write]:
    waiting: list[Mapping[str, Any]] = []
    with open_writer(path, schema) as write_batch:

        def write(row: Mapping[str, Any]) -> None:
            waiting.append(_as_turns(row) if "chosen" in row else row)
            if len(waiting) == _ROWS_IN_BATCH:
                flush()

        def flush() -> None:
            write_batch(pa.RecordBatch.from_pylist(waiting, schema))
            waiting.clear()

        yield write
        flush()


def _as_turns(row: Mapping[str, Any]) -> dict[str, Any]:
    """A pair with every side a list of turns: a Parquet column has one type."""
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    return {
        name: [{"role": roles[name], "content": value}] if isinstance(value, str) else value
        for name, value in row.items()
    }
