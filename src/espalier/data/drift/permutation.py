"""A p-value without a distribution: how often rows dealt at random to the two sides are at least as different.

Legend: n = rows of the reference, m = of the current, p = draws at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Statistic = Callable[[NDArray[np.float32]], NDArray[np.float64]]  # (p, n + m) 1 = dealt to the reference -> (p,)
_AT_ONCE = 250
_ENOUGH = 20  # draws as extreme, after which chance is proven well enough
_SLACK = 1e-9  # sums in another order differ by less


def permutation_p(statistic: Statistic, n: int, m: int, draws: int, seed: int, name: str) -> tuple[float, float]:
    """(statistic as observed, p). The first n rows are the reference.

    After `draws` draws p = (1 + as extreme) / (1 + draws) (Phipson and Smyth 2010); where chance gives as much 20 times
    before that, at draw d, the search ends with p = 20 / d (Besag and Clifford 1991). Both are valid: under the same
    distribution P(p <= a) <= a. The draws depend on `seed` and `name` alone.
    """
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
    random = np.random.default_rng(int.from_bytes(digest, "big"))
    sides = np.concatenate([np.ones(n, np.float32), np.zeros(m, np.float32)])
    observed = float(statistic(sides[None])[0])
    extreme, done = 0, 0
    while done < draws:
        count = min(_AT_ONCE, draws - done)
        dealt = random.permuted(np.tile(sides, (count, 1)), axis=1)
        hits = np.flatnonzero(statistic(dealt) >= observed - _SLACK)
        if extreme + len(hits) >= _ENOUGH:
            last = done + int(hits[_ENOUGH - extreme - 1]) + 1
            return observed, _ENOUGH / last
        extreme += len(hits)
        done += count
    return observed, (1 + extreme) / (1 + draws)
