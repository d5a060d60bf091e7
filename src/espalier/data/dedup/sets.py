"""The shingles, ids and uris of the rows that stand in a pair, written down once so that pairs need no shard again.

Legend: n = rows, s = shingles of all rows.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from espalier.data.dedup.plan import Search
from espalier.data.dedup.words import read_words
from espalier.data.flow.files import BatchFile, save_batch

_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),  # of the corpus
        ("id", pa.string()),
        ("uri", pa.string()),
        ("shingles", pa.large_list(pa.uint64())),  # none for a row that only has exact duplicates
    ]
)


@dataclass(frozen=True, slots=True)
class Sets:
    """Rows of one shard, ascending (n,), and the shingles of row i: `shingles[offsets[i]:offsets[i + 1]]`."""

    rows: NDArray[np.int64]
    shingles: NDArray[np.uint64]
    offsets: NDArray[np.int64]
    names: pa.RecordBatch

    def find(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where rows of the corpus stand in here."""
        return np.searchsorted(self.rows, rows)


def write_sets(task: tuple[Search, range]) -> None:
    """Write the sets of the involved rows of some shards."""
    search, shards = task
    involved = search.row_bytes("involved")
    for shard in shards:
        start, end = search.starts[shard : shard + 2]
        marks = np.array(involved[start:end])
        rows = np.flatnonzero(marks)
        if not len(rows):
            continue
        batch = search.shards[shard]
        chosen = pa.RecordBatch.from_pydict({name: batch.column(name).take(pa.array(rows)) for name in _needed(batch)})
        shingles = collect_shingles(chosen.column("text"), search.shingle_words, marks[rows] == 2)
        columns = [pa.array(rows + start), chosen.column("id"), name_uris(chosen), shingles]
        save_batch(_path(search, shard), pa.RecordBatch.from_arrays(columns, schema=_SCHEMA))


@functools.lru_cache(maxsize=64)
def _open(path: Path, made_ns: int) -> Sets:
    names = BatchFile(path)[0]
    shingles = names.column("shingles")
    return Sets(
        names.column("row").to_numpy(), shingles.values.to_numpy(), shingles.offsets.to_numpy(), names.select([1, 2])
    )


def open_sets(search: Search, shard: int) -> Sets:
    """The sets of one shard, mapped."""
    path = _path(search, shard)
    return _open(path, path.stat().st_mtime_ns)


def collect_shingles(
    texts: pa.LargeStringArray, size: int, wanted: NDArray[np.bool_] | None = None
) -> pa.LargeListArray:
    """The different shingles of `size` words of each text, as 64-bit hashes; none where a text is not `wanted`.

    A shorter text is one shingle, one without words has none.
    """
    from espalier.data.dedup import kernels

    if wanted is not None and not wanted.all():
        texts = pc.if_else(pa.array(wanted), texts, "")
    parts, sizes = [np.empty(0, np.uint64)], [np.zeros(1, np.int64)]
    for words in read_words(texts):
        out = np.empty(len(words.hashes), np.uint64)
        offsets = np.zeros(len(words.word_offsets), np.int64)
        kernels.collect_shingles(words.hashes, words.word_offsets, size, out, offsets)
        parts.append(out[: offsets[-1]].copy())
        sizes.append(np.diff(offsets))
    return pa.LargeListArray.from_arrays(np.cumsum(np.concatenate(sizes)), np.concatenate(parts))


def name_uris(batch: pa.RecordBatch) -> pa.StringArray:
    """Where each row came from: its column `uri`, or the uri of its first span. (n,)"""
    if "uri" in batch.schema.names:
        return batch.column("uri")
    return pa.array([spans[0]["uri"] if spans else "" for spans in batch.column("spans").to_pylist()], pa.string())


def _needed(batch: pa.RecordBatch) -> list[str]:
    return ["id", "text", "uri" if "uri" in batch.schema.names else "spans"]


def _path(search: Search, shard: int) -> Path:
    return search.work / f"sets-{shard:06d}.arrow"
