"""Rows that were accepted earlier: the texts of dataset versions, read from their Parquet files a row group at a time.

Legend: n = rows of a batch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from espalier.core.errors import InvalidInput, NotFound
from espalier.data.dedup.sketch import sketch_texts
from espalier.data.flow.files import BatchFile, save_batch
from espalier.data.flow.spread import Spread

_DOCUMENTS, _EXAMPLES = "documents*.parquet", "data/*.parquet"


class KnownRows(Sequence[pa.RecordBatch]):
    """Batches of `id`, `text` and `uri` (the version's folder and the row's source), read when asked for. Picklable."""

    def __init__(self, groups: Sequence[tuple[str, Path, int]]) -> None:
        self._groups = tuple(groups)

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, number: Any) -> Any:
        name, path, group = self._groups[number]
        with pq.ParquetFile(path) as file:
            columns = [column for column in ("id", "text", "spans", "messages") if column in file.schema_arrow.names]
            table = file.read_row_group(group, columns=columns)
        return _shape(table.combine_chunks(), name)


class Chained(Sequence[pa.RecordBatch]):
    """One sequence after another."""

    def __init__(self, first: Any, second: Any) -> None:
        self._first, self._second = first, second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def __getitem__(self, number: Any) -> Any:
        own = number - len(self._first)
        return self._second[own] if own >= 0 else self._first[number]


def open_known(paths: Sequence[Path]) -> KnownRows:
    """The rows of dataset versions (folders) and Parquet files.

    Raises NotFound where there is no such file or folder, InvalidInput where a file holds no texts.
    """
    groups = []
    for path in paths:
        for file in find_parquet(path):
            try:
                with pq.ParquetFile(file) as opened:
                    names = set(opened.schema_arrow.names)
                    count = opened.num_row_groups
            except pa.ArrowInvalid as error:
                raise InvalidInput(f"no Parquet file: {error}", where=str(file)) from None
            if not {"id", "text"} <= names:
                raise InvalidInput("there are no columns `id` and `text`", where=str(file))
            groups += [(name_version(path), file, group) for group in range(count)]
    return KnownRows(groups)


def name_version(path: Path) -> str:
    """What a version is called: as its manifest says, else as its folder is."""
    manifest = path / "manifest.json"
    try:
        found: str = json.loads(manifest.read_bytes())["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return path.name
    return found


def find_parquet(path: Path) -> list[Path]:
    """The Parquet files that hold a dataset version's texts: of its documents and of its examples. Raises NotFound."""
    if path.is_file():
        return [path]
    files = [*sorted(path.glob(_DOCUMENTS)), *sorted(path.glob(_EXAMPLES))]
    if not files:
        raise NotFound(
            f"no dataset version in {path}", hint="a version's folder holds documents-00000.parquet and data/"
        )
    return files


def sketch_known(
    known: KnownRows, near: float, shingle_words: int, work: Path, spread: Spread
) -> list[pa.RecordBatch] | Sketches:
    """The sketch of each batch, mapped from files in `work`."""
    paths = [work / f"known-{number:06d}.arrow" for number in range(len(known))]
    tasks = [(known, number, near, shingle_words, path) for number, path in enumerate(paths)]
    for _ in spread(_sketch, tasks):
        pass
    return Sketches(paths)


class Sketches(Sequence[pa.RecordBatch]):
    """Sketches in files, mapped when asked for."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: Any) -> Any:
        return BatchFile(self._paths[number])[0]

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return (self[number] for number in range(len(self)))


def _sketch(task: tuple[KnownRows, int, float, int, Path]) -> None:
    known, number, near, shingle_words, path = task
    save_batch(path, sketch_texts(known[number].column("text"), near, shingle_words))


def _shape(table: pa.Table, name: str) -> pa.RecordBatch:
    """Rows of documents or of examples (their turns joined by a blank line) in one shape."""
    texts = table.column("text").cast(pa.large_string()).combine_chunks()
    texts = texts.chunk(0) if isinstance(texts, pa.ChunkedArray) else texts
    if "messages" in table.schema.names and len(table):
        column = table.column("messages").chunk(0)
        contents = column.flatten().field("content").cast(pa.string())
        turns = pa.ListArray.from_arrays(pc.subtract(column.offsets, column.offsets[0]), contents)
        joined = pc.binary_join(turns, "\n\n").cast(pa.large_string())
        texts = pc.if_else(pc.equal(texts, ""), joined, texts)
    if "spans" in table.schema.names:
        sources = [spans[0]["uri"] if spans else "" for spans in table.column("spans").to_pylist()]
    else:
        sources = [""] * len(table)
    uris = pa.array([f"{name}/{source}" if source else name for source in sources], pa.string())
    ids = pa.array(table.column("id").to_pylist(), pa.string())
    # A document that reads as its example does has no text of its own there.
    said = pc.fill_null(pc.greater(pc.binary_length(texts), 0), False)
    return pa.RecordBatch.from_pydict({"id": ids, "text": texts, "uri": uris}).filter(said)
