"""Exact duplicates: rows whose words have the same 128-bit digest. Knows sketches, and no text.

Legend: N = rows of the corpus, n = rows looked at, m = duplicates found.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from espalier.data.dedup.partition import count_ranges, partition
from espalier.data.dedup.plan import Pairs, Search, pack_pairs, split_pairs
from espalier.data.dedup.sketch import HIGH, LOW

_FILE = "exact.npy"


def find_exact(search: Search, kept: NDArray[np.uint8], involved: NDArray[np.uint8]) -> None:
    """Clear `kept` (N,) for every row that equals an earlier one, and mark those earlier ones as `involved` (N,)."""
    ranges = count_ranges(search.rows)
    found = [_group(rows) for rows in partition(_read(search, ranges), ranges, search.work / "digests")]
    pairs = np.sort(np.concatenate([np.empty(0, np.uint64), *found]))
    later, first = split_pairs(pairs)
    kept[later] = 0
    involved[first] = 1
    np.save(search.work / _FILE, pairs[later >= search.known_rows])


def read_exact(search: Search, shard: int) -> Pairs:
    """Each exact duplicate in `shard` with the first row it equals, sorted. (m,)"""
    pairs = np.load(search.work / _FILE, mmap_mode="r")
    bounds = search.starts[shard : shard + 2].astype(np.uint64) << np.uint64(32)
    first, last = np.searchsorted(pairs, bounds)
    return np.array(pairs[first:last])


def _read(search: Search, ranges: int) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.uint64]]]:
    for shard, start in enumerate(search.starts[:-1]):
        sketch = search.sketches[shard]
        high, low = sketch.column(HIGH).to_numpy(), sketch.column(LOW).to_numpy()
        positions = np.arange(start, start + len(sketch), dtype=np.uint64)
        yield (high >> np.uint64(32)) % np.uint64(ranges), np.stack([high, low, positions], axis=1)


def _group(rows: NDArray[np.uint64]) -> Pairs:
    """Rows (n, 3) of digest and position -> each row that equals an earlier one, with the first such."""
    rows = rows.reshape(-1, 3)
    order = np.sort(rows[:, 0])
    twice = order[1:][order[1:] == order[:-1]]
    rows = rows[np.isin(rows[:, 0], twice)]  # few: sorting by three columns is dear
    rows = rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))]
    same = np.zeros(len(rows), bool)
    same[1:] = (rows[1:, :2] == rows[:-1, :2]).all(axis=1)
    first = np.maximum.accumulate(np.where(same, 0, np.arange(len(rows))))
    return pack_pairs(rows[same, 2], rows[first[same], 2])
