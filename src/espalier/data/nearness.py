"""How alike two texts are, and which pairs of many are alike: MinHash finds candidates, true Jaccard decides.

Knows texts only; what follows from likeness is for deduplication and splitting to say.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import xxhash

SHINGLE_WORDS = 3
_WORD = re.compile(r"\w+")
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
    from espalier.data.minhash import band_keys, choose_rows

    rows = choose_rows(threshold)
    buckets: dict[bytes, list[int]] = defaultdict(list)
    for position, shingles in enumerate(texts):
        found: set[int] = set()
        for key in band_keys(shingles, rows):
            found.update(buckets[key])
            buckets[key].append(position)
        yield sorted(found)
