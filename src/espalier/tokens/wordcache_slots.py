"""The memory of a word cache: what its kernels read and write.

A slot is four numbers. Words of up to 16 bytes are in it themselves (padded with zeros), longer ones by their hash and
the place of their bytes; either way the bytes are compared, so equal hashes cost time and nothing else. One or two ids
are in the slot too.

Knows arrays; no words.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Slots(NamedTuple):
    """An open-addressing table and the bytes and ids that do not fit into it.

    table: uint64 (slots, 4): first 8 bytes or hash, next 8 bytes or place in `keys`, length << 32 | ids (0 where
    empty), the id or two ids or place in `ids`. used: int64 (3,): words, bytes of keys, ids of ids.
    """

    table: npt.NDArray[np.uint64]
    keys: npt.NDArray[np.uint8]
    ids: npt.NDArray[np.int32]
    used: npt.NDArray[np.int64]


def make_slots(size: int, *, keys: int = 0, ids: int = 0) -> Slots:
    """Empty slots, and room for at least so many bytes of keys and ids."""
    return Slots(
        np.zeros((size, 4), np.uint64),
        np.empty(max(keys, 4 * size), np.uint8),
        np.empty(max(ids, 2 * size), np.int32),
        np.zeros(3, np.int64),
    )
