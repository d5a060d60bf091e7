"""The population stability index: how differently two populations fill the same bins.

PSI = sum over bins of (c - r) ln(c / r), with r and c the shares of a bin in reference and current: the symmetric
Kullback-Leibler divergence of Jeffreys 1946. As a monitor with the thresholds 0.1 and 0.25: Siddiqi 2006, "Credit Risk
Scorecards". Numbers are binned at quantiles of the reference, categories by value.

Small counts: half a row is added to every bin (Krichevsky and Trofimov 1981), so that an empty one gives no infinity;
values with fewer than five rows on both sides together share one bin; and since PSI of n and m rows of one population
is about (1/n + 1/m) times a chi-square of bins - 1 degrees (Yurdakul 2018, "Statistical Properties of Population
Stability Index"), each index comes with the p that follows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HALF = 0.5
_RARE = 5
OTHERS = "(rare)"


@dataclass(frozen=True, slots=True)
class Stability:
    """An index, its p, and the bin that adds most to it with its shares."""

    psi: float
    p: float
    worst: str
    shares: tuple[float, float]  # of that bin: reference, current


def stability_index(reference: Sequence[int], current: Sequence[int], added: float = HALF) -> float:
    """PSI of counts by bin, (b,) and (b,). `added` rows are added to every bin; with 0 no bin may be empty."""
    return float(_terms(reference, current, added).sum())


def compare_numbers(reference: NDArray[np.int64], current: NDArray[np.int64], bins: int) -> Stability:
    """PSI over `bins` quantile bins of the reference, fewer where values repeat. (n,), (m,)"""
    cuts = np.unique(np.quantile(reference, np.arange(1, bins) / bins, method="inverted_cdf"))
    counts = [
        np.bincount(np.searchsorted(cuts, side, "left"), minlength=len(cuts) + 1) for side in (reference, current)
    ]
    filled = (counts[0] + counts[1]) > 0  # nothing lies above the last cut when that is the greatest value
    edges = ["", *map(str, cuts), ""]
    names = [_name_bin(edges[at], edges[at + 1]) for at in range(len(cuts) + 1)]
    kept = [name for name, keep in zip(names, filled, strict=True) if keep]
    return _judge(counts[0][filled].tolist(), counts[1][filled].tolist(), kept)


def compare_categories(reference: Sequence[str], current: Sequence[str]) -> Stability:
    """PSI over values, rare ones together."""
    sides = Counter(reference), Counter(current)
    common = sorted(value for value, count in (sides[0] + sides[1]).items() if count >= _RARE)
    counts = [[side[value] for value in common] for side in sides]
    rest = [side.total() - sum(found) for side, found in zip(sides, counts, strict=True)]
    if any(rest):
        common.append(OTHERS)
        counts = [[*found, left] for found, left in zip(counts, rest, strict=True)]
    return _judge(counts[0], counts[1], common)


def chi_square_tail(value: float, degrees: int) -> float:
    """P(chi-square > value), by the cube root of Wilson and Hilferty 1931; 1 for no degrees."""
    if degrees < 1 or value <= 0:
        return 1.0
    spread = 2 / (9 * degrees)
    z = ((value / degrees) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
    return 0.5 * math.erfc(z / math.sqrt(2))


def _judge(reference: list[int], current: list[int], names: list[str]) -> Stability:
    terms = _terms(reference, current, HALF)
    n, m = sum(reference), sum(current)
    psi = float(terms.sum())
    worst = int(terms.argmax())
    p = chi_square_tail(psi / (1 / n + 1 / m), len(names) - 1)
    return Stability(psi, p, names[worst], (reference[worst] / n, current[worst] / m))


def _terms(reference: Sequence[int], current: Sequence[int], added: float) -> NDArray[np.float64]:
    sides = [np.asarray(counts, np.float64) + added for counts in (reference, current)]
    r, c = (side / side.sum() for side in sides)  # (b,)
    terms: NDArray[np.float64] = (c - r) * np.log(c / r)
    return terms


def _name_bin(above: str, upto: str) -> str:
    return " ".join(part for part in (f"over {above}" if above else "", f"up to {upto}" if upto else "") if part)
