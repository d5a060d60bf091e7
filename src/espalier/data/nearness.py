"""How alike two texts are, and which pairs of many are alike: MinHash-LSH finds candidates, true Jaccard decides.

MinHash: Broder 1997, "On the resemblance and containment of documents"; banding: Leskovec, Rajaraman, Ullman,
"Mining of Massive Datasets", ch. 3. Knows texts only; what follows from likeness is for deduplication and splitting
to say.

Legend: s = shingles of one text, p = permutations, n = texts.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

PERMUTATIONS = 128
SHINGLE_WORDS = 3
# A pair exactly at the threshold is missed as a candidate with at most this probability.
MISS = 0.002
_WORD = re.compile(r"\w+")
_MERSENNE_31 = np.uint64((1 << 31) - 1)
Shingles = frozenset[int]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts by their positions, `first < second`, and their Jaccard index."""

    first: int
    second: int
    jaccard: float


def words_of(text: str) -> list[str]:
    """The text's words in lower case: what counts as the same text for likeness."""
    return _WORD.findall(text.lower())


def hash_text(text: str) -> int:
    """64 bits that are equal for texts of the same words."""
    return int(xxhash.xxh3_64_intdigest(" ".join(words_of(text)).encode()))


def shingle(text: str, size_words: int = SHINGLE_WORDS) -> Shingles:
    """Hashes of every run of `size_words` words; a shorter text is one shingle, an empty one has none."""
    words = words_of(text)
    if not words:
        return frozenset()
    last = max(1, len(words) - size_words + 1)
    runs = (" ".join(words[start : start + size_words]) for start in range(last))
    return frozenset(xxhash.xxh3_64_intdigest(run.encode()) for run in runs)


def jaccard(one: Shingles, other: Shingles) -> float:
    """Shared shingles over all shingles; 0 when either text is empty."""
    if not one or not other:
        return 0.0
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def find_pairs(texts: Sequence[Shingles], threshold: float) -> list[Pair]:
    """Every pair with a Jaccard index of at least `threshold`, verified, sorted by position."""
    pairs = []
    for second, earlier in enumerate(candidates(texts, threshold)):
        for first in earlier:
            value = jaccard(texts[first], texts[second])
            if value >= threshold:
                pairs.append(Pair(first, second, value))
    return sorted(pairs, key=lambda pair: (pair.first, pair.second))


def candidates(texts: Sequence[Shingles], threshold: float) -> Iterator[list[int]]:
    """For each text, in order: the earlier texts that share a band with it, ascending."""
    rows = choose_rows(threshold)
    buckets: dict[bytes, list[int]] = defaultdict(list)
    for position, shingles in enumerate(texts):
        found: set[int] = set()
        for key in _bands(shingles, rows):
            found.update(buckets[key])
            buckets[key].append(position)
        yield sorted(found)


def choose_rows(threshold: float) -> int:
    """The most rows a band may have with a miss probability of at most `MISS` at the threshold."""
    for rows in range(16, 1, -1):
        if (1 - threshold**rows) ** (PERMUTATIONS // rows) <= MISS:
            return rows
    return 1


def _coefficients() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    random = np.random.default_rng(0x65737061)
    high = int(_MERSENNE_31)
    return random.integers(1, high, PERMUTATIONS, np.uint64), random.integers(0, high, PERMUTATIONS, np.uint64)


_MULTIPLIERS, _OFFSETS = _coefficients()


def sign(shingles: Shingles) -> NDArray[np.uint32]:
    """The MinHash signature: for each permutation the least hash. (p,)"""
    # Folding 64 bits to 31 keeps the products within 64 bits.
    folded = np.fromiter(shingles, np.uint64, len(shingles)) % _MERSENNE_31  # (s,)
    hashes = (folded[:, None] * _MULTIPLIERS[None, :] + _OFFSETS[None, :]) % _MERSENNE_31  # (s, p)
    least: NDArray[np.uint32] = hashes.min(axis=0).astype(np.uint32)
    return least


def _bands(shingles: Shingles, rows: int) -> list[bytes]:
    if not shingles:
        return []
    signature = sign(shingles)
    count = PERMUTATIONS // rows
    return [bytes([band]) + signature[band * rows : (band + 1) * rows].tobytes() for band in range(count)]
