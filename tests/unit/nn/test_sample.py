from __future__ import annotations

import pytest
import torch
from scipy import stats

from espalier.core.types import SamplingSpec
from espalier.nn.sample import Sampler, choose_tokens

LOGITS = torch.tensor([2.0, 1.0, 0.5, -1.0, 1.0])


def draw(count: int, **spec: float | int) -> list[int]:
    sampler = Sampler(SamplingSpec(**spec))  # type: ignore[arg-type]
    return [choose_tokens(LOGITS[None], [sampler])[0] for _ in range(count)]


def test_temperature_zero_takes_the_first_of_the_largest() -> None:
    logits = torch.tensor([[0.0, 3.0, 3.0], [5.0, 1.0, 5.0]])
    assert choose_tokens(logits, [Sampler(SamplingSpec()), None]) == [1, 0]


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.0])
def test_draws_follow_the_softmax_at_the_temperature(temperature: float) -> None:
    drawn = draw(4000, temperature=temperature, seed=5)
    expected = (LOGITS.double() / temperature).softmax(-1).numpy() * 4000
    counts = [drawn.count(i) for i in range(5)]
    assert stats.chisquare(counts, expected).pvalue > 0.001


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.01, {0}), (0.49, {0}), (0.6, {0, 1}), (0.8, {0, 1, 4}), (0.9, {0, 1, 4, 2}), (1.0, {0, 1, 2, 3, 4})],
)
def test_the_nucleus_is_the_shortest_head_that_reaches_top_p(top_p: float, kept: set[int]) -> None:
    # Probabilities by id: 0.498, 0.183, 0.111, 0.025, 0.183; of two equal ones the earlier id stands first.
    assert set(draw(3000, temperature=1.0, top_p=top_p, seed=1)) == kept


@pytest.mark.parametrize("temperature", [1e-45, 1e-39, 1e-12, 1e-6, 1e-4])
def test_a_temperature_that_is_next_to_nothing_takes_the_largest(temperature: float) -> None:
    assert draw(20, temperature=temperature, top_p=0.9, seed=1) == [0] * 20


def test_a_seed_fixes_the_draws_and_no_seed_does_not() -> None:
    warm = {"temperature": 1.5, "top_p": 1.0}
    assert draw(50, **warm, seed=3) == draw(50, **warm, seed=3)
    assert draw(50, **warm, seed=3) != draw(50, **warm, seed=4)
    assert draw(50, **warm) != draw(50, **warm)


def test_draws_do_not_depend_on_who_shares_the_batch() -> None:
    one, other = (Sampler(SamplingSpec(temperature=1.0, seed=s)) for s in (1, 2))
    alone = draw(20, temperature=1.0, seed=1)
    assert [choose_tokens(torch.stack([LOGITS.flip(0), LOGITS]), [other, one])[1] for _ in range(20)] == alone
