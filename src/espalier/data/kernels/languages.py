"""Naive Bayes over the byte n-grams a text visits: the inner loop of py3langid for many texts at once.

Knows no language and no model file; `clean/language.py` hands over the tables.
Legend: n = rows, s = states of the automaton, r = its distinct rows, f = features, c = classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from espalier.data.kernels.buffers import Bytes, Offsets
from espalier.data.kernels.compiling import kernel

Floats = npt.NDArray[np.float32]


class Tables(NamedTuple):
    """An automaton over bytes, and the log-probability of each feature it finds in each class."""

    moves: npt.NDArray[np.uint32]  # (r * 256,) next state
    row_of_state: npt.NDArray[np.int64]  # (s,) where the state's row begins in `moves`
    feature_of_state: npt.NDArray[np.int32]  # (s,) -1 for none
    weights: Floats  # (f, c)
    prior: Floats  # (c,)


@kernel
def score_rows(data: Bytes, offsets: Offsets, tables: Tables, scores: Floats) -> None:
    """The log-posterior of each class for each row: log(1 + count) of each feature times its weight. scores (n, c)"""
    n_features, n_classes = tables.weights.shape
    counts = np.zeros(n_features, np.int32)
    visited = np.empty(n_features, np.int32)
    for row in range(len(offsets) - 1):
        state, found = 0, 0
        for i in range(offsets[row], offsets[row + 1]):
            state = int(tables.moves[tables.row_of_state[state] + data[i]])
            feature = tables.feature_of_state[state]
            if feature >= 0:
                if counts[feature] == 0:
                    visited[found] = feature
                    found += 1
                counts[feature] += 1
        row_scores = scores[row]
        for j in range(n_classes):
            row_scores[j] = tables.prior[j] if found else np.float32(0)
        for k in range(found):
            feature = visited[k]
            times = np.float32(np.log1p(counts[feature]))
            weights = tables.weights[feature]
            for j in range(n_classes):
                row_scores[j] += times * weights[j]
            counts[feature] = 0
