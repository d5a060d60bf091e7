"""Tokenized documents -> rectangles: documents of like length side by side, padded on the right, within a token budget.

A causal row never sees its padding, so a rectangle is exact. Sorting by length inside a window keeps padding at a few
percent; the order of the rectangles is then shuffled. Pure: the same lengths, budget and seed give the same
rectangles.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from espalier.tokens.mask import Tokenized

PAD_ID = 0


@dataclass(frozen=True, slots=True)
class Rectangle:
    """n documents of at most t inputs. `rows` are positions in ids.flatten() that predict `targets` with `weights`."""

    ids: npt.NDArray[np.int64]  # (n, t)
    rows: npt.NDArray[np.int64]  # (r,)
    targets: npt.NDArray[np.int64]  # (r,)
    weights: npt.NDArray[np.float32]  # (r,)
    documents: tuple[str, ...]

    @property
    def tokens(self) -> int:
        """Positions computed, padding included."""
        return int(self.ids.size)


def group(lengths: Sequence[int], *, rectangle_tokens: int, seed: str) -> list[list[int]]:
    """Indices of the documents of each rectangle; each document in exactly one, a longer one than the budget alone."""
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    groups: list[list[int]] = []
    current: list[int] = []
    for index in order:  # ascending, so this document is the widest so far
        if current and lengths[index] * (len(current) + 1) > rectangle_tokens:
            groups.append(current)
            current = []
        current.append(index)
    if current:
        groups.append(current)
    random.Random(seed).shuffle(groups)
    return groups


def rectangle(documents: Sequence[Tokenized]) -> Rectangle:
    """Lay documents side by side. The last token of each is only a target, so it takes no input position."""
    t = max(len(document.ids) for document in documents) - 1
    ids = np.full((len(documents), t), PAD_ID, dtype=np.int64)
    rows, targets, weights = [], [], []
    for n, document in enumerate(documents):
        tokens = np.asarray(document.ids, dtype=np.int64)
        loss = np.asarray(document.weights[1:], dtype=np.float32)
        ids[n, : len(tokens) - 1] = tokens[:-1]
        places = np.flatnonzero(loss)
        rows.append(n * t + places)
        targets.append(tokens[1:][places])
        weights.append(loss[places])
    return Rectangle(
        ids,
        np.concatenate(rows),
        np.concatenate(targets),
        np.concatenate(weights),
        tuple(document.id for document in documents),
    )
