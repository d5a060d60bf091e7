"""MinHash signatures and their bands: texts that are alike probably share a band.

MinHash: Broder 1997, "On the resemblance and containment of documents". Banding: Leskovec, Rajaraman and Ullman,
"Mining of Massive Datasets", chapter 3. The permutations are a * x + b modulo 2^32 with odd a, over shingle hashes that
are random already, so their order is decided by well-mixed high bits.

Legend: n = texts, p = permutations, b = bands.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from espalier.data.dedup.words import Words

PERMUTATIONS = 128
# A pair exactly at the threshold is missed with at most this probability.
MISS = 0.002


@dataclass(frozen=True, slots=True)
class Banding:
    """`count` bands of `rows` permutations each: two texts of Jaccard index j share one with 1 - (1 - j^rows)^count."""

    rows: int
    count: int

    def sign(self, words: Words, shingle_words: int) -> NDArray[np.uint64]:
        """The band keys of n texts (b, n); 0 for a text without words."""
        from espalier.data.dedup import kernels

        keys = np.empty((self.count, len(words.word_offsets) - 1), np.uint64)
        multipliers, increments = permutations(self.rows * self.count)
        kernels.sign_bands(words.hashes, words.word_offsets, shingle_words, multipliers, increments, self.rows, keys)
        return keys


def choose_banding(near: float) -> Banding:
    """The most rows a band may have with a miss probability of at most `MISS` for pairs at `near`."""
    for rows in range(16, 1, -1):
        count = PERMUTATIONS // rows
        if (1 - near**rows) ** count <= MISS:
            return Banding(rows, count)
    return Banding(1, PERMUTATIONS)


@functools.cache
def permutations(count: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Multipliers (odd) and increments of `count` permutations (p,): the same for ever."""
    random = np.random.Generator(np.random.PCG64(0x65737061))
    pairs = random.integers(0, 1 << 32, (count, 2), np.uint32)
    return pairs[:, 0] | np.uint32(1), np.ascontiguousarray(pairs[:, 1])
