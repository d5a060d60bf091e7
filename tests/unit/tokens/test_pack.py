"""Packing: every document once, within its budget, and every supervised token once with its own target."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from espalier.tokens.mask import Tokenized
from espalier.tokens.pack import group, rectangle

LENGTHS = st.lists(st.integers(1, 300), max_size=120)


@st.composite
def documents(draw: st.DrawFn) -> list[Tokenized]:
    made = []
    for index in range(draw(st.integers(1, 8))):
        ids = draw(st.lists(st.integers(3, 99), min_size=2, max_size=20))
        weights = [0.0, *draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=len(ids) - 1, max_size=len(ids) - 1))]
        made.append(Tokenized(str(index), ids, weights))
    return made


@given(lengths=LENGTHS, budget=st.integers(1, 1000))
def test_each_document_is_in_exactly_one_group(lengths: list[int], budget: int) -> None:
    groups = group(lengths, rectangle_tokens=budget, seed="s")
    assert sorted(index for members in groups for index in members) == list(range(len(lengths)))


@given(lengths=LENGTHS, budget=st.integers(1, 1000))
def test_a_rectangle_keeps_its_budget_unless_one_document_alone_is_longer(lengths: list[int], budget: int) -> None:
    for members in group(lengths, rectangle_tokens=budget, seed="s"):
        assert max(lengths[i] for i in members) * len(members) <= budget or len(members) == 1


@given(lengths=LENGTHS)
def test_the_seed_alone_decides_the_order(lengths: list[int]) -> None:
    assert group(lengths, rectangle_tokens=500, seed="a") == group(lengths, rectangle_tokens=500, seed="a")


def test_another_seed_gives_another_order() -> None:
    lengths = list(range(1, 200))
    assert group(lengths, rectangle_tokens=300, seed="a") != group(lengths, rectangle_tokens=300, seed="b")


@given(made=documents())
def test_rows_point_at_the_token_before_each_supervised_one(made: list[Tokenized]) -> None:
    laid = rectangle(made)
    flat, t = laid.ids.flatten(), laid.ids.shape[1]
    seen = []
    for row, target, weight in zip(laid.rows, laid.targets, laid.weights, strict=True):
        document, place = made[row // t], int(row % t)
        assert flat[row] == document.ids[place]
        assert target == document.ids[place + 1]
        assert weight == np.float32(document.weights[place + 1])
        seen.append((int(row // t), place + 1))
    wanted = [(n, i) for n, document in enumerate(made) for i, w in enumerate(document.weights) if w > 0]
    assert seen == wanted
