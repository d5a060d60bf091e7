"""Reads the sources, each once: what was read is kept by content, and a source that comes again is not opened.

What is wrong with a source is kept with it: a recipe that refuses it finds the same problems in the cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from espalier.core.ids import digest_of, make_id
from espalier.data.flow.batch import SCHEMA
from espalier.data.flow.chain import place
from espalier.data.flow.files import load_json, open_batches, save_batches, save_json
from espalier.data.flow.gauge import Gauge, Teller, ticking
from espalier.data.flow.plan import digest_code
from espalier.data.flow.run import Flow
from espalier.data.flow.shard import SHARD_BYTES, SHARD_ROWS, Part
from espalier.data.readers.options import ReadOptions
from espalier.data.readers.plugin import reader_id
from espalier.data.readers.problem import Problem
from espalier.data.readers.reading import read_source
from espalier.data.readers.source import SourceFile, suffix_of


@dataclass(frozen=True, slots=True)
class ReadTask:
    """One source to read into the cache under `key`."""

    source: SourceFile
    options: ReadOptions
    key: str
    cache: str


@dataclass(frozen=True, slots=True)
class ReadSource:
    """What a source gave: parts with rows, and what was wrong with it."""

    source: SourceFile
    parts: tuple[Part, ...]
    note: str  # the file with its problems

    def problems(self) -> Iterator[Problem]:
        """What was wrong, under the name the source has today."""
        for told in (load_json(Path(self.note)) or {}).get("problems", ()):
            yield Problem.from_json({**told, "uri": self.source.uri})


def read_sources(flow: Flow, sources: Sequence[SourceFile], options: ReadOptions) -> Iterator[ReadSource]:
    """Every source in order; emits `data.read` with files, rows and an estimate of the time left."""
    tasks = [ReadTask(source, options, read_key(source, options), str(flow.cache)) for source in sources]
    gauge = Gauge(flow.emit, [_progress_note(task) for task in tasks], [size_of(source) for source in sources])
    with ticking(flow.spread, gauge.tick):
        for found in flow.spread(read_into_cache, tasks):
            gauge.finish(sum(part.rows for part in found.parts))
            yield found


def _progress_note(task: ReadTask) -> Path:
    return place(Path(task.cache), "read", task.key).with_suffix(".progress")


def size_of(source: SourceFile) -> int:
    """Bytes on disk, packed as they are."""
    return source.path.stat().st_size


def read_key(source: SourceFile, options: ReadOptions) -> str:
    """What the outcome of reading depends on: bytes, reader, options, code; not the name, and not the place."""
    told = {"sha256": source.sha256, "reader": reader_id(source.uri, options), "licence": source.licence}
    return digest_of({**told, "suffix": suffix_of(source.uri), "options": options.to_json(), "code": digest_code()})


def read_into_cache(task: ReadTask) -> ReadSource:
    """Read a source unless it was read before."""
    key = task.key
    path = place(Path(task.cache), "read", key)
    note = load_json(path.with_suffix(".json"))
    if note is None or (note["rows"] and open_batches(path) is None):
        key, note = _read(task)
        path = place(Path(task.cache), "read", key)
    source = task.source
    count = len(note["rows"])
    parts = tuple(
        Part(str(path), number, key, source.uri, rows, text_bytes, number == count - 1)
        for number, (rows, text_bytes) in enumerate(zip(note["rows"], note["bytes"], strict=True))
    )
    return ReadSource(source, parts, str(path.with_suffix(".json")))


def _read(task: ReadTask) -> tuple[str, dict[str, Any]]:
    """Read a source and keep what it gave; the key it is kept under, and its note.

    A time-out may be the machine's mood. What was read until then has a key of its own: the next build reads again, and
    no step takes the one for the other.
    """
    note: dict[str, Any] = {"rows": [], "bytes": [], "problems": [], "transient": False}
    made = place(Path(task.cache), "read", task.key).parent / f".{make_id('read')}"
    try:
        with closing(Teller(_progress_note(task))) as teller:
            batches = _take_problems(read_source(task.source, task.options, teller), note)
            save_batches(made, SCHEMA, _noting(_cut(batches), note))
        key = digest_of({"partly": task.key, "note": note}) if note["transient"] else task.key
        path = place(Path(task.cache), "read", key)
        if note["rows"]:
            path.parent.mkdir(exist_ok=True)
            made.replace(path)
    finally:
        made.unlink(missing_ok=True)
    save_json(path.with_suffix(".json"), note)
    return key, note


def _take_problems(items: Iterable[pa.RecordBatch | Problem], note: dict[str, Any]) -> Iterator[pa.RecordBatch]:
    for item in items:
        if isinstance(item, Problem):
            note["problems"].append(item.to_json())
            note["transient"] |= item.transient
        else:
            yield item


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
