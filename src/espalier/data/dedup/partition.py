"""Rows of numbers in parts that fit into memory: rows of one part together, through files where there are many.

Legend: n = rows of a stretch, r = numbers a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from espalier.store.disk import storage_errors

# Rows a part has on average: tens of megabytes while it is sorted.
_ROWS_IN_RANGE = 4_000_000


def count_ranges(rows: int) -> int:
    """How many parts so many rows are to have."""
    return max(1, -(-rows // _ROWS_IN_RANGE))


def partition(
    stretches: Iterable[tuple[NDArray[np.uint64], NDArray[np.uint64]]], ranges: int, prefix: Path
) -> Iterator[NDArray[np.uint64]]:
    """Stretches (part of each row (n,), rows (n,) or (n, r)) -> the rows of each of `ranges` parts, in their order.

    With one part all is held in memory; with more, files beginning with `prefix` hold it meanwhile.
    """
    if ranges == 1:
        held = [rows for _, rows in stretches]
        yield np.concatenate(held) if held else np.empty(0, np.uint64)
        return
    paths = [prefix.with_name(f"{prefix.name}-{number:04d}.rows") for number in range(ranges)]
    shape: tuple[int, ...] = ()
    with storage_errors(prefix.parent), ExitStack() as stack:
        files = [stack.enter_context(path.open("wb")) for path in paths]
        for parts, rows in stretches:
            shape = rows.shape[1:]
            order = np.argsort(parts, kind="stable")
            bounds = np.searchsorted(parts[order], np.arange(ranges + 1))
            for number, file in enumerate(files):
                file.write(rows[order[bounds[number] : bounds[number + 1]]].tobytes())
    for path in paths:
        yield np.fromfile(path, np.uint64).reshape(-1, *shape)
        path.unlink()
