"""How sure a number is: two-sided intervals for scores, and for the difference of two scores on the same cases.

`interval_of` and `difference_of` choose by the values themselves:

    0 or 1 and independent, or all alike    Wilson: a bootstrap of equal values has no width, and would claim certainty
    anything else                           percentile bootstrap of the mean, whole clusters drawn together

Cases made from one document are one cluster: they are not independent, and drawing them apart would make the interval
too narrow. Same values, same seed: same interval. Knows numbers only.

Sources: Wilson's is in metrics/proportion; Newcombe (1998), Statistics in Medicine 17, 2635-2650, method 10 (paired
proportions); McNemar (1947), exact form; Efron and Tibshirani (1993), chapter 13.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from espalier.metrics.proportion import Interval, wilson

RESAMPLES = 4000
_CELLS_AT_ONCE = 2_000_000  # bounds the memory of a bootstrap, 16 MB of indices


@dataclass(frozen=True, slots=True)
class Difference:
    """After minus before, over paired cases. `p_value` is McNemar's exact one for 0/1 values, else None."""

    value: float
    interval: Interval
    p_value: float | None


def interval_of(values: Sequence[float], clusters: Sequence[str] = (), *, ratio: bool, seed: int = 0) -> Interval:
    """The interval of a mean of at least one value. `ratio`: the values lie in 0 to 1. `clusters`: one name a value."""
    mean = math.fsum(values) / len(values)
    groups = len(set(clusters)) if clusters else len(values)
    if ratio and ((_is_binary(values) and groups == len(values)) or min(values) == max(values)):
        return wilson(mean * groups, groups)
    return bootstrap_mean(values, clusters, seed=seed)


def difference_of(
    before: Sequence[float], after: Sequence[float], clusters: Sequence[str] = (), *, ratio: bool, seed: int = 0
) -> Difference:
    """The paired difference: `before[i]` and `after[i]` are the same case."""
    changes = [b - a for a, b in zip(before, after, strict=True)]
    value = math.fsum(changes) / len(changes)
    binary = ratio and _is_binary(before) and _is_binary(after)
    groups = len(set(clusters)) if clusters else len(changes)
    if ratio and ((binary and groups == len(changes)) or min(changes) == max(changes)):
        low_high = newcombe(before, after, n=groups)
    else:
        low_high = bootstrap_mean(changes, clusters, seed=seed)
    return Difference(value, low_high, mcnemar(before, after) if binary and groups == len(changes) else None)


def newcombe(before: Sequence[float], after: Sequence[float], n: int = 0) -> Interval:
    """The difference of two paired proportions, from their Wilson intervals and their correlation (method 10).

    `n` counts independent cases, where that is fewer than the values.
    """
    n = n or len(before)
    first, second = math.fsum(before) / len(before), math.fsum(after) / len(after)
    one, two = wilson(first * n, n), wilson(second * n, n)
    phi = _correlation(before, after)
    value = second - first
    below = _square_and_add(second - two.low, one.high - first, phi)
    above = _square_and_add(first - one.low, two.high - second, phi)
    return Interval(max(-1.0, value - below), min(1.0, value + above))


def mcnemar(before: Sequence[float], after: Sequence[float]) -> float:
    """The exact two-sided p-value that as many cases were won as lost; 1 when none changed."""
    won = sum(b > a for a, b in zip(before, after, strict=True))
    lost = sum(b < a for a, b in zip(before, after, strict=True))
    changed = won + lost
    tail = sum(math.comb(changed, k) for k in range(min(won, lost) + 1))
    p_value: float = 2 * tail / 2**changed
    return min(1.0, p_value)


def bootstrap_mean(
    values: Sequence[float], clusters: Sequence[str] = (), *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """The percentile bootstrap of a mean: whole clusters are drawn with replacement, their values pooled."""
    sums, sizes = _by_cluster(values, clusters)
    draw = np.random.default_rng(seed)
    rows = max(1, _CELLS_AT_ONCE // len(sums))
    means = []
    for start in range(0, resamples, rows):
        picked = draw.integers(0, len(sums), size=(min(rows, resamples - start), len(sums)))
        means.append(sums[picked].sum(axis=1) / sizes[picked].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return Interval(float(low), float(high))


def _by_cluster(values: Sequence[float], clusters: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if not clusters:
        return np.asarray(values, dtype=np.float64), np.ones(len(values))
    place = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    sums, sizes = np.zeros(len(place)), np.zeros(len(place))
    for name, value in zip(clusters, values, strict=True):
        sums[place[name]] += value
        sizes[place[name]] += 1
    return sums, sizes


def _correlation(before: Sequence[float], after: Sequence[float]) -> float:
    """Newcombe's phi of a paired 2x2 table, its numerator shrunk by n/2 when positive; 0 when a margin is empty."""
    pairs = list(zip(before, after, strict=True))
    both = sum(a >= 0.5 and b >= 0.5 for a, b in pairs)
    lost = sum(a >= 0.5 > b for a, b in pairs)
    won = sum(a < 0.5 <= b for a, b in pairs)
    neither = len(pairs) - both - lost - won
    margins = (both + lost) * (won + neither) * (both + won) * (lost + neither)
    if not margins:
        return 0.0
    product = both * neither - lost * won
    return (max(product - len(pairs) / 2, 0.0) if product > 0 else product) / math.sqrt(margins)


def _square_and_add(one: float, two: float, phi: float) -> float:
    return math.sqrt(max(0.0, one * one - 2 * phi * one * two + two * two))


def _is_binary(values: Sequence[float]) -> bool:
    return all(value in (0.0, 1.0) for value in values)
