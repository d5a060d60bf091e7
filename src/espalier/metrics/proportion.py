"""How sure a share is: Wilson's interval, and two exact tails. Knows numbers only.

Sources: Wilson (1927), Probable inference, the law of succession, and statistical inference, JASA 22; Clopper and
Pearson (1934), Biometrika 26 (the binomial tail); Fisher (1935), The logic of inductive inference, JRSS 98.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided interval, of 95 % where nothing else is said."""

    low: float
    high: float


def wilson(successes: float, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion; `successes` may be a sum of shares, for which it is conservative."""
    z = _two_sided(confidence)
    share, z2 = successes / n, z**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At 0 and 1 the formula gives exactly that bound but for rounding.
    return Interval(0.0 if share <= 0 else max(0.0, centre - half), 1.0 if share >= 1 else min(1.0, centre + half))


def binomial_tail(successes: int, n: int, rate: float) -> float:
    """How likely `successes` or more of `n` are where each has probability `rate`: Clopper's and Pearson's p-value."""
    if successes <= 0 or rate >= 1:
        return 1.0
    if rate <= 0:
        return 0.0
    odds = (
        _log_choose(n, count) + count * math.log(rate) + (n - count) * math.log1p(-rate)
        for count in range(successes, n + 1)
    )
    return min(1.0, math.fsum(map(math.exp, odds)))


def fisher_tail(successes: int, n: int, others: int, others_n: int) -> float:
    """How likely `successes` or more of `n` are where they and `others` of `others_n` fell as chance has it.

    Fisher's exact p-value, one-sided: the sum of both sides' successes is taken as given, so no rate need be known.
    """
    marked, total = successes + others, n + others_n
    every = _log_choose(total, n)
    odds = (
        _log_choose(marked, count) + _log_choose(total - marked, n - count) - every
        for count in range(successes, min(n, marked) + 1)
        if n - count <= total - marked
    )
    return min(1.0, math.fsum(map(math.exp, odds)))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


@cache
def _two_sided(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)
