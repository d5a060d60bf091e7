"""The plan of a search for duplicates: where everything lies, and how rows and pairs of rows are numbered.

Rows are numbered through the corpus in its order, so no result depends on how it is cut into shards. A pair of rows is
one number: later << 32 | earlier.

Legend: N = rows of the corpus, m = pairs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from espalier.data.dedup.sketch import count_bands
from espalier.data.flow.step import Shards

MAX_ROWS = 1 << 32
# Work is handed out in so many tasks at most: each carries the paths of all shards.
_TASKS = 64
_LOW = np.uint64(MAX_ROWS - 1)
EDGE = np.dtype([("pair", np.uint64), ("jaccard", np.float64)])
Pairs = NDArray[np.uint64]  # later << 32 | earlier


@dataclass(frozen=True)
class Search:
    """Where everything of one search lies; small and picklable, so any worker can take part.

    known_rows: so many rows at the start were accepted earlier: they may make others duplicates and are none.
    """

    sketches: Sequence[pa.RecordBatch]
    shards: Shards
    work: Path
    near: float
    shingle_words: int
    known_rows: int = 0

    @functools.cached_property
    def starts(self) -> NDArray[np.int64]:
        """The number of the first row of each shard, and N."""
        return np.cumsum([0, *(len(self.sketches[shard]) for shard in range(len(self.sketches)))])

    @property
    def rows(self) -> int:
        """N."""
        return int(self.starts[-1])

    @functools.cached_property
    def bands(self) -> int:
        """How many bands the sketches have; 0 where only exact duplicates are looked for."""
        return count_bands(self.sketches[0]) if len(self.sketches) else 0

    def row_bytes(self, name: str, mode: Any = "r") -> NDArray[np.uint8]:
        """A mapped file of one byte a row. (N,)"""
        if self.rows == 0:
            return np.zeros(0, np.uint8)
        return np.memmap(self.work / f"{name}.bytes", np.uint8, mode, shape=(self.rows,))

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def part_shards(search: Search) -> Iterator[range]:
    """The shards in at most `_TASKS` stretches."""
    count = len(search.sketches)
    step = -(-count // _TASKS) or 1
    for first in range(0, count, step):
        yield range(first, min(first + step, count))


def read_edges(search: Search, shard: int) -> NDArray[Any]:
    """The verified pairs whose later row is in `shard`, sorted: (m,) of EDGE."""
    files = sorted(shard_folder(search, shard).glob("edges-*.npy"))
    edges = np.concatenate([np.empty(0, EDGE), *(np.load(file) for file in files)])
    return edges[np.argsort(edges["pair"], kind="stable")]


def shard_folder(search: Search, shard: int) -> Path:
    """Where what is found for the rows of one shard is kept; made when something is."""
    return search.work / f"shard-{shard:06d}"


def split_pairs(pairs: Pairs) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Later and earlier rows. (m,), (m,)"""
    return (pairs >> np.uint64(32)).astype(np.int64), (pairs & _LOW).astype(np.int64)


def pack_pairs(later: NDArray[Any], earlier: NDArray[Any]) -> Pairs:
    """The inverse of `split_pairs`."""
    return (later.astype(np.uint64) << np.uint64(32)) | earlier.astype(np.uint64)


def pair_files(search: Search, number: int) -> list[Path]:
    """The candidates of one round: sorted arrays of pairs."""
    return sorted(search.work.glob(f"pairs-{number:03d}-*.npy"))
