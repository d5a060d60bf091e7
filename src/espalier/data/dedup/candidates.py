"""Candidate pairs: rows that share the key of a band. Knows sketches, and no text.

Legend: n = rows of a range of keys, m = pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from espalier.data.dedup.partition import count_ranges, partition
from espalier.data.dedup.plan import Pairs, Search
from espalier.data.dedup.sketch import band_name
from espalier.store.disk import storage_errors

# Buckets up to so many rows have all their pairs compared.
SMALL = 16
# So many kept rows of a larger bucket are compared with all the others, in the first round, the second ...
LEADERS = (4, 16, 64)
_KEY = np.uint64(32)


def find_candidates(task: tuple[Search, int, int]) -> bool:
    """Write the candidates of (search, round, band) to files of sorted pairs; whether a bucket was too large for all.

    In the first round buckets are made of all rows but exact duplicates. Later rounds take up its large buckets, with
    the rows that are still kept.
    """
    search, number, band = task
    kept = search.row_bytes("kept")
    leaders = LEADERS[min(number, len(LEADERS) - 1)]
    crowded = False
    buckets = _sort_keys(search, band) if number == 0 else map(np.load, crowded_files(search, f"{band:03d}"))
    for part, packed in enumerate(buckets):
        if number == 0:
            large = _select_crowded(packed)
            crowded = crowded or len(large) > 0
            with storage_errors(search.work):
                np.save(search.work / f"crowded-{band:03d}-{part:04d}.npy", large)
        else:
            crowded = crowded or len(packed) > 0
        pairs = _pair_up(packed, kept, leaders, search.known_rows)
        if len(pairs):
            with storage_errors(search.work):
                np.save(search.work / f"pairs-{number:03d}-{band:03d}-{part:04d}.npy", pairs)
    return crowded


def crowded_files(search: Search, band: str = "*") -> list[Path]:
    """What stands in large buckets: arrays of `key << 32 | row`, written in the first round."""
    return sorted(search.work.glob(f"crowded-{band}-*.npy"))


def _pair_up(packed: NDArray[np.uint64], kept: NDArray[np.uint8], leaders: int, known: int) -> Pairs:
    """Sorted pairs (m,) of one range's buckets; see `kernels.pair_up`."""
    from espalier.data.dedup import kernels

    count = kernels.pair_up(packed, kept, SMALL, leaders, known, np.empty(0, np.uint64))
    pairs = np.empty(count, np.uint64)
    if count:
        kernels.pair_up(packed, kept, SMALL, leaders, known, pairs)
    pairs.sort()
    return pairs


def _sort_keys(search: Search, band: int) -> Iterator[NDArray[np.uint64]]:
    """Ranges of `key << 32 | row`, sorted, of rows that are no exact duplicates and share their key. (n,)

    32 bits of the key stand in it; the range says more of them. What shares those by chance is not verified later on.
    """
    ranges = count_ranges(search.rows)
    for packed in partition(_read_keys(search, band, ranges), ranges, search.work / f"keys-{band:03d}"):
        packed.sort()
        shared = np.zeros(len(packed), bool)
        keys = packed >> _KEY
        shared[1:] = keys[1:] == keys[:-1]
        shared[:-1] |= shared[1:]
        yield packed[shared]


def _read_keys(search: Search, band: int, ranges: int) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.uint64]]]:
    kept = search.row_bytes("kept")
    for shard, start in enumerate(search.starts[:-1]):
        keys = search.sketches[shard].column(band_name(band)).to_numpy()
        rows = np.flatnonzero((keys != 0) & (kept[start : start + len(keys)] != 0))
        keys = keys[rows]
        yield (keys >> _KEY) % np.uint64(ranges), (keys << _KEY) | (rows + start).astype(np.uint64)


def _select_crowded(packed: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """What stands in buckets of more than SMALL rows."""
    keys = packed >> _KEY
    first = np.ones(len(keys), bool)
    first[1:] = keys[1:] != keys[:-1]
    sizes = np.diff(np.flatnonzero(first), append=len(packed))
    return packed[np.repeat(sizes > SMALL, sizes)]
