from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from espalier.data.dedup.components import contract, label_items, merge_forests

EDGES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=60)


def reference(edges: list[tuple[int, int]], count: int) -> list[int]:
    """For each item the least of its component, by scipy."""
    rows, columns = zip(*edges, strict=True) if edges else ((), ())
    _, labels = connected_components(coo_array((np.ones(len(edges)), (rows, columns)), (count, count)), directed=False)
    least = {label: int(np.flatnonzero(labels == label)[0]) for label in set(labels.tolist())}
    return [least[label] for label in labels.tolist()]


def as_array(edges: list[tuple[int, int]]) -> np.ndarray:
    return np.array(edges, np.int64).reshape(-1, 2)


@given(EDGES)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_every_item_hangs_on_the_least_it_reaches(edges: list[tuple[int, int]]) -> None:
    assert label_items(contract(as_array(edges)), 41).tolist() == reference(edges, 41)


@given(EDGES, st.integers(1, 9), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_forests_of_any_parts_in_any_order_merge_into_the_same(
    edges: list[tuple[int, int]], parts: int, shuffler: random.Random
) -> None:
    shuffled = list(edges)
    shuffler.shuffle(shuffled)
    forests = [contract(as_array(shuffled[part::parts])) for part in range(parts)]
    assert np.array_equal(merge_forests(forests), contract(as_array(edges)))


def test_a_forest_is_no_larger_than_its_items() -> None:
    edges = np.random.default_rng(0).integers(0, 100, (5000, 2))
    forest = contract(edges)
    assert len(forest) == 99 and (forest[:, 1] == 0).all()
    assert merge_forests([]).shape == (0, 2)
