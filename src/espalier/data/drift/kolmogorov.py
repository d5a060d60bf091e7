"""The two-sample Kolmogorov-Smirnov test: the greatest distance between two empirical distribution functions."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_TERMS = 100
_SURE_BELOW = 0.2  # the tail is 1 to twelve digits there, and its series converges slowly


def compare_distributions(reference: NDArray[np.int64], current: NDArray[np.int64]) -> tuple[float, float]:
    """(D, p) of two samples, (n,) and (m,).

    p is of the limit distribution (Smirnov 1948) at D (sqrt(e) + 0.12 + 0.11 / sqrt(e)), e = n m / (n + m) (Stephens
    1970). Values that repeat, as lengths do, make it too large: it errs on the side of no alarm.
    """
    one, other = np.sort(reference), np.sort(current)
    values = np.unique(np.concatenate([one, other]))
    below = [np.searchsorted(side, values, "right") / len(side) for side in (one, other)]
    distance = float(np.abs(below[0] - below[1]).max())
    root = math.sqrt(len(one) * len(other) / (len(one) + len(other)))
    return distance, smirnov_tail((root + 0.12 + 0.11 / root) * distance)


def smirnov_tail(value: float) -> float:
    """2 sum over k of (-1)^(k-1) exp(-2 k^2 value^2), within [0, 1]."""
    if value < _SURE_BELOW:
        return 1.0
    total = math.fsum((-1) ** (k - 1) * math.exp(-2 * (k * value) ** 2) for k in range(1, _TERMS + 1))
    return min(1.0, max(0.0, 2 * total))
