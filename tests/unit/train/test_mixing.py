"""The order of a mix: shares hold, nothing is repeated before its turn, and any point can be started from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.core.errors import InvalidInput
from espalier.tokens.pack import Int64, Strip
from espalier.train.documents import Part, check_shares
from espalier.train.mixing import MixedCorpus
from espalier.train.plan import Plan

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=25)
EPOCHS = 4


@dataclass(frozen=True)
class Lengths:
    """Documents of which only the lengths are known."""

    lengths: Int64
    parts: tuple[Part, ...]
    digest: str = ""

    def __len__(self) -> int:
        return len(self.lengths)

    def strip(self, index: int) -> Strip:
        ids = np.full(int(self.lengths[index]), 5, np.int32)
        plain = np.array([[0, len(ids), 0, 0]], np.int32)
        none = np.zeros(len(ids), np.int32)
        return Strip(str(index), ids, none, plain, none, none, np.ones(len(ids), np.float32), none)


def make_lengths(*parts: tuple[list[int], float]) -> Lengths:
    stretches, at = [], 0
    for number, (lengths, share) in enumerate(parts):
        stretches.append(Part(f"d{number}" if number else "", at, at + len(lengths), share))
        at += len(lengths)
    return Lengths(np.array([n for lengths, _ in parts for n in lengths], np.int64), tuple(stretches))


def corpus(documents: Lengths, seed: str = "s", size: int = 7) -> MixedCorpus:
    return MixedCorpus(documents, seed=seed, window_documents=size)


def epoch_of(made: MixedCorpus, epoch: int) -> list[int]:
    numbers: list[int] = []
    index = 0
    while len(window := made.window(epoch, index)):
        numbers += window.tolist()
        index += 1
    return numbers


@settings(max_examples=40)
@given(main=LENGTHS, other=LENGTHS, share=st.floats(0, 3))
def test_the_share_of_tokens_holds_within_one_document_after_every_epoch(
    main: list[int], other: list[int], share: float
) -> None:
    documents = make_lengths((main, 1.0), (other, share))
    made, drawn = corpus(documents), 0
    for epoch in range(EPOCHS):
        numbers = [n for n in epoch_of(made, epoch) if n >= len(main)]
        drawn += int(documents.lengths[numbers].sum())
        wanted = (epoch + 1) * share * sum(main)
        assert wanted - 1e-6 <= drawn <= wanted + max(other)


@settings(max_examples=40)
@given(main=LENGTHS, other=LENGTHS, share=st.floats(0.01, 3))
def test_no_document_comes_again_before_all_have_come(main: list[int], other: list[int], share: float) -> None:
    made = corpus(make_lengths((main, 1.0), (other, share)))
    for epoch in range(EPOCHS):
        numbers = epoch_of(made, epoch)
        assert sorted(n for n in numbers if n < len(main)) == list(range(len(main)))
    # Which ones an epoch holds, whatever their order in it: the counts never differ by more than one.
    seen = Counter(dict.fromkeys(range(len(main), len(main) + len(other)), 0))
    for epoch in range(EPOCHS):
        seen.update(n for n in epoch_of(made, epoch) if n >= len(main))
        assert max(seen.values()) - min(seen.values()) <= 1


@settings(max_examples=40)
@given(main=LENGTHS, other=LENGTHS, share=st.floats(0, 2), epoch=st.integers(0, 5), index=st.integers(0, 5))
def test_a_window_is_the_same_whatever_was_asked_before(
    main: list[int], other: list[int], share: float, epoch: int, index: int
) -> None:
    documents = make_lengths((main, 1.0), (other, share))
    fresh, used = corpus(documents), corpus(documents)
    for before in range(epoch + 2):
        used.window(before, 0)
    np.testing.assert_array_equal(fresh.window(epoch, index), used.window(epoch, index))


def test_a_run_resumed_at_any_step_goes_on_with_the_same_packs() -> None:
    made = corpus(make_lengths(([9, 4, 7, 3, 8, 2, 6], 1.0), ([5, 5, 3, 9], 0.6)), size=4)
    plan = Plan(16, 2, "s")
    whole = [
        (cursor, [pack.documents for pack in packs])
        for (cursor, packs), _ in zip(plan.steps(made), range(12), strict=False)
    ]
    for at in range(11):
        again = next(iter(plan.steps(corpus(made.documents, size=4), whole[at][0])))  # type: ignore[arg-type]
        assert (again[0], [pack.documents for pack in again[1]]) == whole[at + 1]


def test_passes_seeds_and_epochs_have_orders_of_their_own() -> None:
    documents = make_lengths(([1] * 50, 1.0))
    one = corpus(documents)
    assert epoch_of(one, 0) != epoch_of(one, 1)
    assert epoch_of(one, 0) != epoch_of(corpus(documents, "t"), 0)
    replay = corpus(make_lengths(([1] * 50, 1.0), ([1] * 50, 1.0)))
    passes = [[n for n in epoch_of(replay, epoch) if n >= 50] for epoch in range(2)]
    assert sorted(passes[0]) == sorted(passes[1]) and passes[0] != passes[1]


def test_a_mix_is_spread_over_the_epoch() -> None:
    made = corpus(make_lengths(([10] * 400, 1.0), ([10] * 400, 0.25)), size=100)
    for index in range(5):
        assert 8 <= sum(n >= 400 for n in made.window(0, index).tolist()) <= 32  # 20 expected, 4 standard deviations


def test_the_order_is_the_same_on_every_machine_and_every_numpy() -> None:
    assert epoch_of(corpus(make_lengths(([1] * 8, 1.0)), "fixed", 3), 0) == [1, 5, 4, 7, 6, 2, 3, 0]


@pytest.mark.parametrize("share", [-0.1, float("nan"), float("inf")])
def test_a_share_that_is_no_share_is_refused_by_its_name(share: float) -> None:
    with pytest.raises(InvalidInput, match=f"the share of general is {share}"):
        check_shares([("", 1.0), ("general", share)])


def test_shares_that_are_all_zero_are_refused() -> None:
    with pytest.raises(InvalidInput, match="every share is 0"):
        check_shares([("", 0.0), ("general", 0.0)])
