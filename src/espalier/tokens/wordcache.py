"""Words already encoded, by their bytes: an open-addressing table that grows, up to a bound.

A slot is four numbers. Words of up to 16 bytes are in it themselves (padded with zeros), longer ones by their hash and
the place of their bytes; either way the bytes are compared, so equal hashes cost time and nothing else. One or two ids
are in the slot too.

Knows arrays; no tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FIRST_SLOTS = 1 << 15
MAX_SLOTS = 1 << 22  # 128 MiB of slots: some two million different words
WORD_BYTES = 128  # longer words are hardly met twice; the number that keeps a cache of pasted data small


class Slots(NamedTuple):
    """What the kernels read and write.

    table: uint64 (slots, 4): first 8 bytes or hash, next 8 bytes or place in `keys`, length << 32 | ids (0 where
    empty), the id or two ids or place in `ids`. used: int64 (3,): words, bytes of keys, ids of ids.
    """

    table: npt.NDArray[np.uint64]
    keys: npt.NDArray[np.uint8]
    ids: npt.NDArray[np.int32]
    used: npt.NDArray[np.int64]


class WordCache:
    """The slots, and what may become of them.

    `pinned` words stand for one id whatever the merges say. `hash_mask` is all ones; a test that wants every word in
    one place gives 0.
    """

    def __init__(
        self, *, pinned: Mapping[bytes, int] | None = None, max_slots: int = MAX_SLOTS, hash_mask: int = (1 << 64) - 1
    ) -> None:
        self.max_slots = max_slots
        self.hash_mask = np.uint64(hash_mask)
        self.open = True  # whether new words are taken in
        self.word_bytes = max(WORD_BYTES, *map(len, pinned or ()), 0)
        pinned = pinned or {}
        size = max(min(FIRST_SLOTS, max_slots), 1 << (4 * len(pinned)).bit_length())  # the bound is for words met later
        self.slots = _make_slots(size, keys=2 * sum(map(len, pinned)))
        for word, number in pinned.items():
            self._pin(word, number)

    def __len__(self) -> int:
        """How many words it holds."""
        return int(self.slots.used[0])

    def grow(self) -> None:
        """Make room for as many words again, or take in no more when that would pass the bound."""
        from espalier.tokens.wordcache_kernels import rehash

        old = self.slots
        if 2 * len(self) < len(old.table):  # there are slots, but no room for long words or their ids
            made = _make_slots(len(old.table), keys=2 * len(old.keys), ids=2 * len(old.ids))
        elif 2 * len(old.table) > self.max_slots:
            self.open = False
            return
        else:
            made = _make_slots(2 * len(old.table), keys=len(old.keys), ids=len(old.ids))
        made.keys[: old.used[1]] = old.keys[: old.used[1]]
        made.ids[: old.used[2]] = old.ids[: old.used[2]]
        made.used[:] = old.used
        rehash(old.table, made.table, self.hash_mask)
        self.slots = made

    def _pin(self, word: bytes, number: int) -> None:
        from espalier.tokens.wordcache_kernels import pin_word

        pin_word(as_bytes(word), number, self.slots, self.hash_mask)


def as_bytes(content: bytes) -> npt.NDArray[np.uint8]:
    """Bytes as the kernels take them: an array that cannot be written to."""
    return np.frombuffer(content, np.uint8)


def _make_slots(size: int, *, keys: int = 0, ids: int = 0) -> Slots:
    return Slots(
        np.zeros((size, 4), np.uint64),
        np.empty(max(keys, 4 * size), np.uint8),
        np.empty(max(ids, 2 * size), np.int32),
        np.zeros(3, np.int64),
    )
