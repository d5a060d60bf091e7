"""Packing: every document once, within its budget, and every supervised token once with its own target."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from espalier.tokens.mask import Tokenized
from espalier.tokens.pack import Strip, fill, join, lay, lay_branches

LENGTHS = st.lists(st.integers(1, 300), max_size=120)


@st.composite
def weighted(draw: st.DrawFn, smallest: int = 2) -> tuple[list[int], list[float]]:
    ids = draw(st.lists(st.integers(3, 99), min_size=smallest, max_size=20))
    weights = draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=len(ids), max_size=len(ids)))
    return ids, weights


@given(lengths=LENGTHS, budget=st.integers(1, 1000))
def test_each_document_is_in_exactly_one_pack(lengths: list[int], budget: int) -> None:
    packs = fill(lengths, pack_tokens=budget, seed="s")
    assert sorted(index for members in packs for index in members) == list(range(len(lengths)))


@given(lengths=LENGTHS, budget=st.integers(1, 1000))
def test_a_pack_keeps_its_budget_unless_one_document_alone_is_longer(lengths: list[int], budget: int) -> None:
    for members in fill(lengths, pack_tokens=budget, seed="s"):
        assert sum(lengths[i] for i in members) <= budget or len(members) == 1


@given(lengths=LENGTHS)
def test_no_two_packs_would_fit_into_one(lengths: list[int]) -> None:
    sizes = [sum(lengths[i] for i in members) for members in fill(lengths, pack_tokens=300, seed="s")]
    assert len(sizes) < 2 or sum(sorted(sizes)[:2]) > 300


@given(lengths=LENGTHS)
def test_the_seed_alone_decides_the_order(lengths: list[int]) -> None:
    assert fill(lengths, pack_tokens=500, seed="a") == fill(lengths, pack_tokens=500, seed="a")


def test_another_seed_gives_another_order() -> None:
    lengths = list(range(1, 200))
    assert fill(lengths, pack_tokens=300, seed="a") != fill(lengths, pack_tokens=300, seed="b")


@given(made=st.lists(weighted(), min_size=1, max_size=8))
def test_rows_point_at_the_token_before_each_supervised_one(made: list[tuple[list[int], list[float]]]) -> None:
    strips = [lay(Tokenized(str(n), ids, weights)) for n, (ids, weights) in enumerate(made)]
    pack = join(strips)
    starts = np.cumsum([0, *(len(strip) for strip in strips)])
    seen = []
    for row, target, weight, sequence in zip(pack.rows, pack.targets, pack.weights, pack.sequences, strict=True):
        number = int(np.searchsorted(starts, row, side="right")) - 1
        (ids, weights), place = made[number], int(row - starts[number])
        assert pack.ids[row] == ids[place] and target == ids[place + 1] and weight == np.float32(weights[place + 1])
        seen.append((number, place + 1, int(sequence)))
    learnt = [[i for i, w in enumerate(weights) if w > 0 and i > 0] for _, weights in made]
    owners = np.cumsum([0, *(bool(places) for places in learnt)])
    assert seen == [(n, i, owners[n]) for n, places in enumerate(learnt) for i in places]


@given(
    prompt=st.lists(st.integers(3, 99), min_size=1, max_size=12), answers=st.lists(weighted(1), min_size=1, max_size=3)
)
def test_branches_hold_the_prompt_once_and_each_answer_as_if_it_stood_alone(
    prompt: list[int], answers: list[tuple[list[int], list[float]]]
) -> None:
    strip = lay_branches("x", prompt, answers)
    assert list(strip.ids[: len(prompt)]) == prompt
    assert len(strip) <= len(prompt) + sum(len(ids) - 1 for ids, _ in answers)
    for number, (ids, weights) in enumerate(answers):
        mine = strip.sequences == number
        alone = lay(Tokenized("x", [*prompt, *ids], [0.0] * len(prompt) + weights))
        assert list(strip.targets[mine]) == list(alone.targets) and list(strip.weights[mine]) == list(alone.weights)
        assert list(strip.positions[strip.rows[mine]]) == list(alone.rows)


def test_a_pack_moves_segments_and_their_prefixes_but_not_empty_ones() -> None:
    branched = lay_branches("b", [5, 6], [([7, 8], [1.0, 1.0])])
    pack = join([_plain(3), branched])
    assert pack.segments.tolist() == [[0, 3, 0, 0], [3, 5, 0, 0], [5, 6, 3, 5]]
    assert pack.documents == ("p", "b") and pack.sequence_count == 2


def test_extras_are_laid_end_to_end() -> None:
    one = lay_branches("a", [1], [([2], [1.0])], {"reference": np.array([0.5])})
    assert join([one, one]).extras["reference"].tolist() == [0.5, 0.5]


def _plain(length: int) -> Strip:
    return lay(Tokenized("p", [4] * (length + 1), [0.0] + [1.0] * length))
