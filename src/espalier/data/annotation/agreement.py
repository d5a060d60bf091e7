"""How far annotators agree beyond chance, each figure with its interval. Knows arrays and labels only.

Cohen's kappa (1960), weighted (1968): two annotators. Fleiss' kappa (1971): as many for every item, whoever they are.
Krippendorff's alpha (2011, "Computing Krippendorff's Alpha-Reliability"): any number of them, items missing. F1 of
spans: what one marked and the other did too, over what both marked.

Every figure is a function of distinct patterns (what was said of an item) and how often each occurred. So a bootstrap
draws counts of patterns, not items, and costs the same for a hundred items as for a million. A figure is None where it
is undefined: when chance alone would agree always.

Legend: n = items, k = categories, p = distinct patterns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

RESAMPLES = 1000
_Z95 = NormalDist().inv_cdf(0.975)
Floats = npt.NDArray[np.float64]
Weights = Literal["none", "linear", "quadratic"]
Scale = Literal["nominal", "ordinal", "interval"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure over n items with its 95 % interval, a percentile bootstrap; all None where it is undefined."""

    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int


def cohen_kappa(
    first: Sequence[Hashable],
    second: Sequence[Hashable],
    *,
    weights: Weights = "none",
    categories: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Estimate:
    """Kappa of two annotators; `first[i]` and `second[i]` are of one item.

    weights: how much two categories differ, by their distance in `categories` (their order; needed for weights).
    """
    order = list(categories) if categories is not None else sorted({*first, *second}, key=repr)
    place = {category: i for i, category in enumerate(order)}
    table = np.zeros((len(order), len(order)))
    for one, other in zip(first, second, strict=True):
        table[place[one], place[other]] += 1
    cost = _costs(len(order), weights)

    def kappa(counts: Floats) -> float | None:
        observed = counts.reshape(table.shape)
        total = observed.sum()
        expected = np.outer(observed.sum(axis=1), observed.sum(axis=0)) / total
        return _beyond_chance((cost * observed).sum(), (cost * expected).sum())

    return _estimate(kappa, table.ravel(), seed)


def fleiss_kappa(counts: npt.ArrayLike, *, seed: int = 0) -> Estimate:
    """Kappa of counts (n, k): how many annotators put item i into category j, the same number for every item."""
    patterns, times = _distinct(np.asarray(counts, dtype=np.float64))
    raters = patterns[0].sum() if len(patterns) else 0.0

    def kappa(weights: Floats) -> float | None:
        items = weights.sum()
        shares = weights @ patterns / (items * raters)
        agreeing = (patterns * (patterns - 1)).sum(axis=1) / (raters * (raters - 1))
        return _beyond_chance(1 - weights @ agreeing / items, 1 - (shares**2).sum())

    return _estimate(kappa, times, seed) if raters > 1 else _undefined(len(times))


def krippendorff_alpha(
    units: Sequence[Sequence[Hashable]],
    *,
    scale: Scale = "nominal",
    categories: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Estimate:
    """Alpha of units, each the values its annotators gave, in any order; a unit with fewer than two says nothing.

    scale: how values differ: in kind, in rank, or as numbers. categories: their order, for ordinal.
    """
    paired = [unit for unit in units if len(unit) > 1]
    order = (
        list(categories) if categories is not None else sorted({value for unit in paired for value in unit}, key=_rank)
    )
    place = {category: i for i, category in enumerate(order)}
    counts = np.zeros((len(paired), len(order)))
    for i, unit in enumerate(paired):
        for value in unit:
            counts[i, place[value]] += 1
    if not paired:
        return _undefined(0)
    patterns, times = _distinct(counts)
    size = patterns.sum(axis=1, keepdims=True)
    # Ordered pairs of values within a unit, each weighing 1 / (size - 1).
    pairs = (patterns[:, :, None] * patterns[:, None, :] - patterns[:, :, None] * np.eye(len(order))) / (size - 1)[
        ..., None
    ]

    def alpha(weights: Floats) -> float | None:
        coincidences = np.tensordot(weights, pairs, 1)  # (k, k)
        marginal = coincidences.sum(axis=1)
        total = marginal.sum()
        cost = _distances(order, marginal, scale)
        expected = (np.outer(marginal, marginal) - np.diag(marginal)) / (total - 1)
        return _beyond_chance((cost * coincidences).sum(), (cost * expected).sum())

    return _estimate(alpha, times, seed)


def span_f1(
    first: Sequence[frozenset[tuple[int, int, str]]],
    second: Sequence[frozenset[tuple[int, int, str]]],
    *,
    seed: int = 0,
) -> Estimate:
    """F1 between two annotators' spans (start, end, label) over items: exact match, symmetric; not chance-corrected.

    Items where neither marked anything count neither way.
    """
    triples = [(len(one & other), len(one), len(other)) for one, other in zip(first, second, strict=True)]
    patterns, times = _distinct(np.asarray(triples, dtype=np.float64).reshape(-1, 3))

    def f1(weights: Floats) -> float | None:
        both, one, other = weights @ patterns
        return float(2 * both / (one + other)) if one + other else None

    return _estimate(f1, times, seed)


def share_equal(first: Sequence[Hashable], second: Sequence[Hashable]) -> Estimate:
    """The share of items on which two annotators say the same: not corrected for chance. Interval: Wilson (1927)."""
    n = len(first)
    if not n:
        return _undefined(0)
    share = sum(one == other for one, other in zip(first, second, strict=True)) / n
    centre = (share + _Z95**2 / (2 * n)) / (1 + _Z95**2 / n)
    half = _Z95 / (1 + _Z95**2 / n) * math.sqrt(share * (1 - share) / n + _Z95**2 / (4 * n * n))
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half), n)


def _costs(size: int, weights: Weights) -> Floats:
    steps = np.abs(np.subtract.outer(np.arange(size), np.arange(size))).astype(np.float64)
    if weights == "none":
        return (steps > 0).astype(np.float64)
    return steps if weights == "linear" else steps**2


def _distances(order: Sequence[Hashable], marginal: Floats, scale: Scale) -> Floats:
    """Squared differences between categories, as Krippendorff defines them for each scale. (k, k)"""
    if scale == "nominal":
        return 1 - np.eye(len(order))
    if scale == "interval":
        values = np.asarray(order, dtype=np.float64)
        squared: Floats = np.subtract.outer(values, values) ** 2
        return squared
    middle = np.cumsum(marginal) - marginal / 2  # ranks between two categories, half of each of the two
    ranks: Floats = np.subtract.outer(middle, middle) ** 2
    return ranks


def _beyond_chance(observed: float, expected: float) -> float | None:
    """1 - observed disagreement over what chance would give."""
    return float(1 - observed / expected) if expected > 0 else None


def _distinct(rows: Floats) -> tuple[Floats, Floats]:
    patterns, times = np.unique(rows, axis=0, return_counts=True)
    return patterns, times.astype(np.float64)


def _estimate(figure: Callable[[Floats], float | None], times: Floats, seed: int) -> Estimate:
    n = int(times.sum())
    value = figure(times) if n else None
    if value is None:
        return _undefined(n)
    draw = np.random.default_rng(seed)
    found = [figure(row.astype(np.float64)) for row in draw.multinomial(n, times / n, size=RESAMPLES)]
    defined = [each for each in found if each is not None]
    low, high = np.quantile(defined, [0.025, 0.975]) if defined else (value, value)
    return Estimate(value, float(low), float(high), n)


def _undefined(n: int) -> Estimate:
    return Estimate(None, None, None, n)


def _rank(value: Hashable) -> tuple[int, float, str]:
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, repr(value))
