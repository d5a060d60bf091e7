"""Whether two sets of texts are worded alike: the maximum mean discrepancy of their hashed embeddings.

MMD with a Gaussian kernel, squared and unbiased: Gretton et al. 2012, "A Kernel Two-Sample Test", lemma 6; the kernel's
width is the median distance of the rows (their section 8). Embeddings are of hashed runs of four characters: no model
is loaded, so it sees wording in any language, not meaning.

Legend: n, m = rows of the two sides, d = dimensions of an embedding, p = draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from espalier.data.drift.permutation import permutation_p


def compare_embeddings(
    reference: Sequence[NDArray[np.float64]], current: Sequence[NDArray[np.float64]], draws: int, seed: int, name: str
) -> tuple[float, float]:
    """(squared MMD, p) of embeddings, (n, d) and (m, d), n and m at least 2. Below 0 = less than chance alone."""
    n, m = len(reference), len(current)
    kernel = gaussian_kernel(np.array([*reference, *current]))
    kernel -= np.diag(np.diag(kernel))  # a row with itself does not count
    kernel = kernel.astype(np.float32)
    whole = kernel.sum(axis=1, dtype=np.float64)

    def statistic(dealt: NDArray[np.float32]) -> NDArray[np.float64]:
        to_one = (dealt @ kernel).astype(np.float64)  # (p, n + m) summed kernel of each row with the reference
        both = (to_one * dealt).sum(axis=1)
        cross = (to_one * (1 - dealt)).sum(axis=1)
        other = (whole * (1 - dealt)).sum(axis=1) - cross
        squared: NDArray[np.float64] = both / (n * (n - 1)) + other / (m * (m - 1)) - 2 * cross / (n * m)
        return squared

    return permutation_p(statistic, n, m, draws, seed, name)


def gaussian_kernel(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """exp(-|x - y|^2 / (2 s^2)) with s the median distance; (k, d) -> (k, k)."""
    squares = (rows**2).sum(axis=1)
    distances = np.clip(squares[:, None] + squares[None] - 2 * rows @ rows.T, 0, None)
    apart = distances[np.triu_indices(len(rows), 1)]
    width = float(np.median(apart)) or float(apart.mean()) or 1.0
    kernel: NDArray[np.float64] = np.exp(-distances / (2 * width))
    return kernel
