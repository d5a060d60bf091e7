"""How different texts are from each other: repeated words, and the spread of hashed embeddings. No model is asked.

Legend: n = texts, d = dimensions of an embedding.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

DIMENSIONS = 256
_GRAM_CHARS = 4


def distinct_share(texts: Iterable[str], words: int) -> float:
    """Distinct-n: the share of runs of `words` words that are different; 1 = no repetition.

    Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation Models", section 5.
    """
    runs: set[tuple[str, ...]] = set()
    total = 0
    for text in texts:
        found = text.lower().split()
        runs.update(zip(*(found[start:] for start in range(words)), strict=False))
        total += max(0, len(found) - words + 1)
    return round(len(runs) / total, 4) if total else 0.0


def embedding_spread(texts: Sequence[str]) -> float:
    """The mean cosine distance between two of the texts: 0 = all the same, near 1 = nothing in common.

    By embeddings of hashed runs of four characters, signed (Weinberger et al. 2009, "Feature Hashing for Large Scale
    Multitask Learning"): they see wording, not meaning.
    """
    vectors = np.array([embed(text) for text in texts if text.strip()])
    count = len(vectors)
    if count < 2:
        return 0.0
    # The sum over all pairs is the square of the sum less the n pairs of a text with itself.
    total = vectors.sum(axis=0)
    mean = (float(total @ total) - count) / (count * (count - 1))
    return round(1 - mean, 4)


def embed(text: str) -> NDArray[np.float64]:
    """A text as d numbers of length 1. (d,)"""
    vector = np.zeros(DIMENSIONS)
    data = f" {' '.join(text.lower().split())} ".encode()
    for start in range(max(1, len(data) - _GRAM_CHARS + 1)):
        digest = zlib.crc32(data[start : start + _GRAM_CHARS])
        vector[digest % DIMENSIONS] += 1.0 if digest & 0x8000_0000 else -1.0
    length = float(np.linalg.norm(vector))
    return vector / length if length else vector
