"""Reads the sources, each once: what was read is kept by content, and a source that comes again is not opened.

One unreadable source, or line, is a line in the report, never the end of the build, unless the recipe says so.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from espalier.core.events import Event
from espalier.core.ids import digest_of
from espalier.data.flow.batch import SCHEMA, to_batch
from espalier.data.flow.chain import place
from espalier.data.flow.files import load_json, open_batches, save_batches, save_json
from espalier.data.flow.plan import digest_code
from espalier.data.flow.run import Flow
from espalier.data.flow.shard import SHARD_BYTES, SHARD_ROWS, Part
from espalier.data.readers.reading import read_file
from espalier.data.readers.source import SourceFile, suffix_of

_PROGRESS_S = 0.5


@dataclass(frozen=True, slots=True)
class ReadTask:
    """One source to read into the cache under `key`."""

    source: SourceFile
    key: str
    cache: str


@dataclass(frozen=True, slots=True)
class ReadSource:
    """What a source gave: parts with rows, and what of it could not be read."""

    source: SourceFile
    parts: tuple[Part, ...]
    skipped: str  # why the source (or the rest of it) gave nothing
    dropped: tuple[dict[str, Any], ...]  # rows that could not be read, as they go to the exclusion file


def read_sources(flow: Flow, sources: Sequence[SourceFile]) -> Iterator[ReadSource]:
    """Every source in order; emits `data.read` with files, bytes and an estimate of the time left."""
    tasks = [ReadTask(source, read_key(source), str(flow.cache)) for source in sources]
    sizes = [source.path.stat().st_size for source in sources]
    started = last = time.monotonic()
    documents = done_bytes = 0
    for number, found in enumerate(flow.spread(read_into_cache, tasks)):
        yield found
        documents += sum(part.rows for part in found.parts) + len(found.dropped)
        done_bytes += sizes[number]
        now = time.monotonic()
        if now - last >= _PROGRESS_S or number + 1 == len(tasks):
            last = now
            left_s = (now - started) / max(done_bytes, 1) * (sum(sizes) - done_bytes)
            told = {"files": number + 1, "of_files": len(tasks), "documents": documents, "eta_s": round(left_s, 1)}
            flow.emit(Event("data.read", told))


def read_key(source: SourceFile) -> str:
    """What the outcome of reading depends on: the bytes, the reader, and this code. Not the name, not the place."""
    return digest_of({"sha256": source.sha256, "reader": suffix_of(source.uri), "code": digest_code()})


def read_into_cache(task: ReadTask) -> ReadSource:
    """Read a source unless it was read before."""
    path = place(Path(task.cache), "read", task.key)
    note = load_json(path.with_suffix(".json"))
    if note is None or (note["rows"] and open_batches(path) is None):
        note = _read(task.source, path)
        save_json(path.with_suffix(".json"), note)
    source = task.source
    count = len(note["rows"])
    parts = tuple(
        Part(str(path), number, task.key, source.uri, rows, text_bytes, number == count - 1)
        for number, (rows, text_bytes) in enumerate(zip(note["rows"], note["bytes"], strict=True))
    )
    return ReadSource(source, parts, note["skipped"], tuple({**row, "uri": source.uri} for row in note["dropped"]))


def _read(source: SourceFile, path: Path) -> dict[str, Any]:
    documents, reason = read_file(source)
    dropped = [
        {
            "id": document.id,
            "blob": document.span.blob,
            "page": document.span.page,
            "start": document.span.start,
            "end": document.span.end,
            "reason": document.dropped_because,
        }
        for document in documents
        if document.dropped_because
    ]
    kept = to_batch(document for document in documents if not document.dropped_because)
    note: dict[str, Any] = {"rows": [], "bytes": [], "skipped": reason, "dropped": dropped}
    if len(kept):
        save_batches(path, SCHEMA, _noting(_cut([kept]), note))
    return note


def _noting(batches: Iterable[pa.RecordBatch], note: dict[str, Any]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        note["rows"].append(len(batch))
        note["bytes"].append(text_bytes_of(batch))
        yield batch


def _cut(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Batches no larger than a shard, but for a single row that is."""
    for batch in batches:
        if len(batch) > SHARD_ROWS or (len(batch) > 1 and text_bytes_of(batch) > SHARD_BYTES):
            half = len(batch) // 2
            yield from _cut([batch.slice(0, half), batch.slice(half)])
        elif len(batch):
            yield batch


def text_bytes_of(batch: pa.RecordBatch) -> int:
    """Bytes of the texts and rows of a batch."""
    return sum(_bytes(batch.column(SCHEMA.get_field_index(name))) for name in ("text", "row"))


def _bytes(column: pa.LargeStringArray) -> int:
    if not len(column):
        return 0
    offsets = pa.Array.from_buffers(pa.int64(), len(column) + 1, [None, column.buffers()[1]], offset=column.offset)
    return int(offsets[-1].as_py() - offsets[0].as_py())
