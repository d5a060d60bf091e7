"""MinHash signatures and their bands: texts that are alike probably share a band.

MinHash: Broder 1997, "On the resemblance and containment of documents". Banding: Leskovec, Rajaraman and Ullman,
"Mining of Massive Datasets", chapter 3. Knows hashes only.

Legend: s = shingles of one text, p = permutations.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

PERMUTATIONS = 128
# A pair exactly at the threshold is missed with at most this probability.
MISS = 0.002
_MERSENNE_31 = np.uint64((1 << 31) - 1)


def choose_rows(threshold: float) -> int:
    """The most rows a band may have with a miss probability of at most `MISS` at the threshold."""
    for rows in range(16, 1, -1):
        if (1 - threshold**rows) ** (PERMUTATIONS // rows) <= MISS:
            return rows
    return 1


def band_keys(shingles: Collection[int], rows: int) -> list[bytes]:
    """One key for each band of `rows` rows; a text without shingles has none."""
    if not shingles:
        return []
    signature = sign(shingles)
    count = PERMUTATIONS // rows
    return [bytes([band]) + signature[band * rows : (band + 1) * rows].tobytes() for band in range(count)]


def sign(shingles: Collection[int]) -> NDArray[np.uint32]:
    """The signature: for each permutation the least hash. (p,)"""
    # Folding 64 bits to 31 keeps the products within 64 bits.
    folded = np.fromiter(shingles, np.uint64, len(shingles)) % _MERSENNE_31  # (s,)
    hashes = (folded[:, None] * _MULTIPLIERS[None, :] + _OFFSETS[None, :]) % _MERSENNE_31  # (s, p)
    least: NDArray[np.uint32] = hashes.min(axis=0).astype(np.uint32)
    return least


def _coefficients() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    random = np.random.default_rng(0x65737061)
    high = int(_MERSENNE_31)
    return random.integers(1, high, PERMUTATIONS, np.uint64), random.integers(0, high, PERMUTATIONS, np.uint64)


_MULTIPLIERS, _OFFSETS = _coefficients()
