"""Which words (or tokens) are used, and how often: the Jensen-Shannon distance of two unigram distributions.

The square root of the divergence of Lin 1991 in bits, a metric from 0 (the same) to 1 (no word in common) by Endres
and Schindelin 2003. Rows are dealt, not words: words of one row come together.

Legend: n, m = rows of the two sides, v = words told apart and one for the others, p = draws.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from espalier.data.drift.permutation import permutation_p
from espalier.data.drift.population import Row

_WORD = re.compile(r"\w+")


def words_of(row: Row) -> list[Hashable]:
    """The row's token ids where it has some, else its words in lower case."""
    return list(row.tokens) if row.tokens is not None else list(_WORD.findall(row.text.lower()))


def compare_vocabulary(
    reference: Sequence[Row], current: Sequence[Row], size: int, draws: int, seed: int, name: str
) -> tuple[float, float, str]:
    """(distance, p, the words that became commoner and rarer) of the `size` commonest words of both sides."""
    counted = [Counter(words_of(row)) for row in (*reference, *current)]
    table, words = _tabulate(counted, size)
    n, m = len(reference), len(current)
    total = table.sum(axis=0)  # (v,)

    def statistic(dealt: NDArray[np.float32]) -> NDArray[np.float64]:
        one = (dealt @ table).astype(np.float64)  # (p, v); whole numbers, so exact in float32
        return _distance(one, total - one)

    distance, p = permutation_p(statistic, n, m, draws, seed, name)
    return distance, p, _tell_change(table[:n].sum(axis=0), table[n:].sum(axis=0), words)


def _tabulate(counted: list[Counter[Hashable]], size: int) -> tuple[NDArray[np.float32], list[str]]:
    """Counts by row and word, (n + m, v), the last column for all others; and the words."""
    pooled: Counter[Hashable] = Counter()
    for counts in counted:
        pooled.update(counts)
    words = sorted(pooled, key=lambda word: (-pooled[word], str(word)))[:size]
    column = {word: at for at, word in enumerate(words)}
    table = np.zeros((len(counted), len(words) + 1), np.float32)
    for at, counts in enumerate(counted):
        for word, count in counts.items():
            table[at, column.get(word, len(words))] += count
    return table, [str(word) for word in words]


def _distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of counts, (p, v) each. (p,)"""
    p, q = (side / np.maximum(side.sum(axis=1, keepdims=True), 1) for side in (one, other))
    divergence = _entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2
    distance: NDArray[np.float64] = np.sqrt(np.clip(divergence, 0, 1))
    return distance


def _entropy(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """In bits. (p, v) -> (p,)"""
    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    entropy: NDArray[np.float64] = -(shares * logs).sum(axis=1)
    return entropy


def _tell_change(one: NDArray[np.float32], other: NDArray[np.float32], words: list[str], shown: int = 3) -> str:
    change = (other / max(float(other.sum()), 1) - one / max(float(one.sum()), 1))[: len(words)]
    order = np.argsort(change, kind="stable")
    parts = []
    for sign, found in (
        ("more", [at for at in order[::-1] if change[at] > 0]),
        ("less", [at for at in order if change[at] < 0]),
    ):
        if found:
            parts.append(f"{sign}: {', '.join(words[at] for at in found[:shown])}")
    return "; ".join(parts) or "the same words"
