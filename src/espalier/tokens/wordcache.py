"""Words already encoded, by their bytes: an open-addressing table that grows, up to a bound.

Knows arrays; no tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from espalier.tokens.columns import Bytes
from espalier.tokens.wordcache_slots import Slots, make_slots

FIRST_SLOTS = 1 << 15
MAX_SLOTS = 1 << 22  # 128 MiB of slots: some two million different words
WORD_BYTES = 128  # longer words are hardly met twice; the number that keeps a cache of pasted data small


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
        self.slots: Slots = make_slots(size, keys=2 * sum(map(len, pinned)))
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
            made = make_slots(len(old.table), keys=2 * len(old.keys), ids=2 * len(old.ids))
        elif 2 * len(old.table) > self.max_slots:
            self.open = False
            return
        else:
            made = make_slots(2 * len(old.table), keys=len(old.keys), ids=len(old.ids))
        made.keys[: old.used[1]] = old.keys[: old.used[1]]
        made.ids[: old.used[2]] = old.ids[: old.used[2]]
        made.used[:] = old.used
        rehash(old.table, made.table, self.hash_mask)
        self.slots = made

    def _pin(self, word: bytes, number: int) -> None:
        from espalier.tokens.wordcache_kernels import pin_word

        pin_word(as_bytes(word), number, self.slots, self.hash_mask)


def as_bytes(content: bytes) -> Bytes:
    """Bytes as the kernels take them: an array that cannot be written to."""
    return np.frombuffer(content, np.uint8)
