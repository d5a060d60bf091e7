"""Connected components of a graph whose edges lie in many places: each place keeps a forest, and forests are merged.

A spanning forest connects what its edges connect, and is never larger than the items it speaks of. So parts of the
edges may be contracted anywhere, in any order, and the forests merged pairwise until one is left: the filtering method
of Lattanzi, Moseley, Suri and Vassilvitskii 2011, "Filtering: a method for solving graph problems in MapReduce". Within
a part it is union-find (Tarjan 1975). The result does not depend on how the edges were parted.

Legend: m = edges, k = items that are not the first of their component.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

# Row i says that item forest[i, 0] belongs to the component whose least item is forest[i, 1]; sorted by item.
Forest = NDArray[np.int64]
NO_FOREST: Forest = np.empty((0, 2), np.int64)


def contract(edges: NDArray[np.int64]) -> Forest:
    """The forest (k, 2) of edges (m, 2) between items (numbers from 0 on): each hangs on the least it reaches."""
    from espalier.data.dedup import kernels

    items, places = np.unique(edges, return_inverse=True)
    parent = np.arange(len(items))
    kernels.unite(places.reshape(-1, 2), parent)
    below = np.flatnonzero(parent != np.arange(len(items)))
    return np.stack([items[below], items[parent[below]]], axis=1).astype(np.int64)


def merge_forests(forests: Iterable[Forest]) -> Forest:
    """The forest of all their edges. Pairs of about equal size are merged, so no edge is looked at often."""
    waiting: list[Forest] = []
    for forest in forests:
        waiting.append(forest)
        while len(waiting) > 1 and len(waiting[-2]) <= 2 * len(waiting[-1]):
            waiting.append(contract(np.concatenate([waiting.pop(), waiting.pop()])))
    return contract(np.concatenate([NO_FOREST, *waiting]))


def label_items(forest: Forest, count: int) -> NDArray[np.uint32]:
    """For each item below `count` the least of its component, itself where it stands alone. (count,)"""
    labels = np.arange(count, dtype=np.uint32)
    labels[forest[:, 0]] = forest[:, 1]
    return labels
