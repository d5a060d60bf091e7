"""Examples in Parquet: how a dataset version lies on disk, `data/{train,validation,test}-00000.parquet`.

Written and read a row group at a time, so a set bigger than memory passes through. Knows nothing of what an example is
for; the manifest beside the files is the business of whoever makes the artifact.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.types import Example, Message
from espalier.core.types.examples import Split
from espalier.store.rowgroups import open_writer

_MESSAGE = pa.struct(
    [
        pa.field("role", pa.string(), nullable=False),
        pa.field("content", pa.string(), nullable=False),
        pa.field("weight", pa.float64()),
    ]
)
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("messages", pa.list_(_MESSAGE), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("chosen", pa.list_(_MESSAGE), nullable=False),
        pa.field("rejected", pa.list_(_MESSAGE), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("documents", pa.list_(pa.string()), nullable=False),
        pa.field("tags", pa.map_(pa.string(), pa.string()), nullable=False),
    ]
)
SPLITS: tuple[str, ...] = get_args(Split)
_ROWS_AT_ONCE = 256  # as Python objects; a row may be a book


def write_examples(path: Path, examples: Iterable[Example]) -> int:
    """Write `examples` to the Parquet file `path`, whole or not at all; return how many there were.

    The same examples give the same bytes. An existing file is replaced in one step. Raises StorageFull,
    PermissionDenied.
    """
    rows = iter(examples)
    count = 0
    with open_writer(path, SCHEMA) as write:
        while group := list(islice(rows, _ROWS_AT_ONCE)):
            write(pa.RecordBatch.from_pylist([_to_row(example) for example in group], SCHEMA))
            count += len(group)
    return count


def read_examples(path: Path, split: str | None = None) -> Iterator[Example]:
    """The examples of a Parquet file, or of a dataset's folder (train, then validation, then test), one by one.

    `split` keeps the rows of one split. Raises NotFound when there is no file, InvalidInput when a file is no Parquet
    or has other columns, or when there is no such split.
    """
    if split is not None and split not in SPLITS:
        raise InvalidInput(f"there is no split {split!r}", where=str(path), hint=f"one of {', '.join(SPLITS)}")
    for file in example_files(path, split):
        yield from _read_file(file, split)


def count_examples(path: Path, split: str | None = None) -> int:
    """How many examples there are; of a folder, only footers are read. Raises what `read_examples` raises."""
    if path.is_file() and split is not None:
        return sum(1 for _ in read_examples(path, split))
    return sum(_open(file).metadata.num_rows for file in example_files(path, split))


def example_files(path: Path, split: str | None = None) -> list[Path]:
    """The Parquet files behind `path` in reading order. Raises NotFound when there are none."""
    if path.is_file():
        return [path]
    splits = SPLITS if split is None else (split,)
    files = [file for name in splits for file in sorted((path / "data").glob(f"{name}-*.parquet"))]
    if not files and not any((path / "data").glob("*.parquet")):
        raise NotFound(
            f"no dataset at {path}", hint="expected a .parquet file, or a folder with data/train-00000.parquet"
        )
    return files


def _read_file(file: Path, split: str | None) -> Iterator[Example]:
    parquet = _open(file)
    with parquet:
        for batch in parquet.iter_batches(batch_size=_ROWS_AT_ONCE):
            for row in batch.to_pylist():
                if split is None or row["split"] == split:
                    yield _from_row(row)


def _open(file: Path) -> pq.ParquetFile:
    if not file.is_file():
        raise NotFound(f"no file {file}", hint="check the path")
    try:
        parquet = pq.ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise InvalidInput(
            f"{file.name} is no Parquet file: {error}", where=str(file), hint="build it again"
        ) from error
    missing = [name for name in SCHEMA.names if name not in parquet.schema_arrow.names]
    if missing:
        there = [name for name in parquet.schema_arrow.names if name not in SCHEMA.names]
        parquet.close()
        near = difflib.get_close_matches(missing[0], there, 1)
        raise InvalidInput(
            f"{file.name} holds no examples: column {missing[0]!r} is missing"
            + (f"; is {near[0]!r} meant to be it?" if near else f"; it has {', '.join(there) or 'none'} besides"),
            where=str(file),
            hint=f"columns of an example are {', '.join(SCHEMA.names)}; `espalier data build` makes them of any table",
        )
    return parquet


def _to_row(example: Example) -> dict[str, Any]:
    return {
        "id": example.id,
        "messages": _to_structs(example.messages),
        "text": example.text,
        "chosen": _to_structs(example.chosen),
        "rejected": _to_structs(example.rejected),
        "split": example.split,
        "documents": example.documents,
        "tags": sorted(example.tags.items()),
    }


def _from_row(row: dict[str, Any]) -> Example:
    return Example(
        id=row["id"],
        messages=_to_messages(row["messages"]),
        text=row["text"],
        chosen=_to_messages(row["chosen"]),
        rejected=_to_messages(row["rejected"]),
        split=row["split"],
        documents=row["documents"],
        tags=dict(row["tags"]),
    )


def _to_structs(messages: list[Message]) -> list[dict[str, Any]]:
    return [{"role": turn.role, "content": turn.content, "weight": turn.weight} for turn in messages]


def _to_messages(structs: list[dict[str, Any]]) -> list[Message]:
    return [Message(turn["role"], turn["content"], turn["weight"]) for turn in structs]
