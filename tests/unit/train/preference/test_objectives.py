"""A step's loss and gradient are the same however it is cut into packs; the shared prompt changes nothing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from espalier.tokens.pack import Pack, Strip, join
from espalier.train.objective import Objective
from espalier.train.preference.losses import Pairs, dpo_losses, kto_losses, odds_ratio_losses
from espalier.train.preference.objectives import Dpo, Kto, Orpo
from espalier.train.preference.pairs import DESIRABLE, FOREIGN, UNDESIRABLE, add_prompt

from .conftest import backbone_of, draw_judged, general_backbone_of, step, with_reference

VERDICTS = ([DESIRABLE, FOREIGN], [UNDESIRABLE, FOREIGN])


def _strips(objective: Objective, reference: PreTrainedModel) -> list[Strip]:
    strips = [one.lay(str(n)) for n, one in enumerate(draw_judged(7, 2, seed=3))]
    if isinstance(objective, Orpo):
        return [add_prompt(strip) for strip in strips] if objective.prompt_nll else strips
    if isinstance(objective, Kto):
        given = [np.array(VERDICTS[n % 3 == 0], np.int32) for n in range(7)]
        strips = [replace(strip, extras={"verdict": own}) for strip, own in zip(strips, given, strict=True)]
    return with_reference(strips, reference)


def _cut(strips: Sequence[Strip], sizes: Sequence[int]) -> list[Pack]:
    ends = np.cumsum([0, *sizes])
    return [join(strips[a:b], seed=n) for n, (a, b) in enumerate(itertools.pairwise(ends))]


@pytest.mark.parametrize(
    "objective",
    [Dpo(), Dpo("ipo", rpo_alpha=0.5), Orpo(), Orpo(prompt_nll=True), Kto(), Kto(undesirable_weight=0.5)],
    ids=repr,
)
def test_any_cut_of_a_step_has_its_loss_and_gradient(
    objective: Objective, policy: PreTrainedModel, reference: PreTrainedModel
) -> None:
    strips = _strips(objective, reference)
    whole = step(objective, backbone_of(policy), _cut(strips, [7]))
    for sizes in ([3, 4], [1, 1, 5], [1] * 7):
        loss, gradients, figures = step(objective, backbone_of(policy), _cut(strips, sizes))
        assert loss == pytest.approx(whole[0], rel=1e-6)
        assert figures == pytest.approx(whole[2], rel=1e-4, abs=1e-6)
        for name, gradient in whole[1].items():
            assert (gradients[name] - gradient).norm() <= 1e-5 * gradient.norm(), name


@pytest.mark.parametrize("objective", [Dpo(), Orpo(), Kto()], ids=lambda one: type(one).__name__)
def test_transformers_own_code_gives_the_same(
    objective: Objective, policy: PreTrainedModel, reference: PreTrainedModel
) -> None:
    strips = _strips(objective, reference)
    lean = step(objective, backbone_of(policy), _cut(strips, [7]))
    general = step(objective, general_backbone_of(policy), _cut(strips, [7]))
    assert general[0] == pytest.approx(lean[0], rel=2e-6)
    for name, gradient in lean[1].items():
        assert (general[1][name] - gradient).norm() <= 2e-5 * gradient.norm(), name


@pytest.mark.parametrize("objective", [Dpo(), Kto()], ids=lambda one: type(one).__name__)
def test_a_policy_that_has_not_moved_has_no_margin(objective: Objective, policy: PreTrainedModel) -> None:
    strips = _strips(objective, policy)
    loss, gradients, figures = step(objective, backbone_of(policy), _cut(strips, [7]))
    assert figures["margin"] == pytest.approx(0, abs=1e-5)
    assert loss == pytest.approx(np.log(2) if isinstance(objective, Dpo) else 0.5, rel=1e-4)
    assert all(gradient.norm() > 0 for gradient in gradients.values())


def test_the_weights_of_tokens_weigh_their_log_probabilities(
    policy: PreTrainedModel, reference: PreTrainedModel
) -> None:
    strips = [one.lay(str(n)) for n, one in enumerate(draw_judged(4, 2))]
    halved = [replace(strip, weights=strip.weights / 2) for strip in strips]
    whole = step(Dpo(beta=0.1), backbone_of(policy), [join(with_reference(strips, reference))])
    half = step(Dpo(beta=0.2), backbone_of(policy), [join(with_reference(halved, reference))])
    assert half[0] == pytest.approx(whole[0], rel=1e-6)


@given(values=st.lists(st.floats(-300, 300), min_size=8, max_size=8), smoothing=st.floats(0, 0.4))
def test_smoothing_mixes_the_loss_with_that_of_the_pair_turned_round(values: list[float], smoothing: float) -> None:
    numbers = torch.tensor(values, dtype=torch.float64).view(4, 2)
    tokens = torch.tensor([3.0, 7.0])
    right = Pairs(numbers[0], numbers[1], tokens, tokens)
    wrong = Pairs(numbers[1], numbers[0], tokens, tokens)
    mixed = (1 - smoothing) * dpo_losses("sigmoid", right, 0.3) + smoothing * dpo_losses("sigmoid", wrong, 0.3)
    assert torch.allclose(dpo_losses("sigmoid", right, 0.3, smoothing), mixed)


@given(chosen=st.floats(-500, -1e-9), rejected=st.floats(-500, -1e-9))
def test_odds_are_finite_and_so_is_their_gradient(chosen: float, rejected: float) -> None:
    pair = torch.tensor([chosen, rejected], dtype=torch.float64, requires_grad=True)
    loss = odds_ratio_losses(pair[:1], pair[1:]).sum()
    (gradient,) = torch.autograd.grad(loss, pair)
    assert torch.isfinite(loss) and torch.isfinite(gradient).all()
    assert gradient[0] <= 0 <= gradient[1]


def test_an_odds_ratio_is_what_the_paper_says() -> None:
    chosen, rejected = torch.tensor([0.8]), torch.tensor([0.3])
    odds = (chosen / (1 - chosen)) / (rejected / (1 - rejected))
    assert torch.allclose(odds_ratio_losses(chosen.log(), rejected.log()), -torch.sigmoid(odds.log()).log())


def test_kto_values_a_gain_over_the_reference_point() -> None:
    ratios, desirable = torch.tensor([2.0, 2.0]), torch.tensor([True, False])
    good, bad = kto_losses("kto", ratios, desirable, 1.0, 0.5, 1.0, 3.0).tolist()
    assert good == pytest.approx(1 - 1 / (1 + np.exp(-0.5)))
    assert bad == pytest.approx(3 * (1 - 1 / (1 + np.exp(0.5))))
