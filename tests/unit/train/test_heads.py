"""The losses of heads against torch's own, and that no split of a step changes them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from espalier.nn.crossentropy import Head
from espalier.nn.scorehead import ScoreHead
from espalier.tokens.ends import lay_ends
from espalier.tokens.pack import Pack, Strip, join
from espalier.train.heads.objectives import MARGIN, Labelling, Preferring, label_losses, pair_losses
from espalier.train.objective import Objective, StepTotals


class Table:
    """A backbone that looks its hidden states up: one for each token id, its only parameters."""

    def __init__(self, vocabulary: int, width: int) -> None:
        drawn = torch.randn(vocabulary, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.states = drawn.requires_grad_()

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        return {"states": self.states}

    def hidden(self, pack: Pack) -> Tensor:
        return self.states[torch.from_numpy(pack.ids[pack.rows])]

    def head(self) -> Head:
        return Head(self.states)


def make_head(rows: int, width: int) -> ScoreHead:
    drawn = torch.randn(rows, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = tuple(f"l{n}" for n in range(rows)) if rows > 1 else ()
    return ScoreHead("classify" if rows > 1 else "reward", labels, drawn.requires_grad_())


def gradients(objective: Objective, backbone: Table, head: ScoreHead, packs: list[Pack]) -> tuple[float, list[Tensor]]:
    step = StepTotals(sum(objective.weigh(pack) for pack in packs))
    total = torch.stack([objective.loss(backbone, pack, step).value for pack in packs]).sum()
    return float(total.detach()), list(torch.autograd.grad(total, [backbone.states, head.weight]))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.5, 2.0, 1.0)])
def test_the_loss_of_labels_is_torchs_in_one_pack_or_several(smoothing: float, weights: tuple[float, ...]) -> None:
    backbone, head = Table(20, 6), make_head(3, 6)
    by_label = torch.tensor(weights, dtype=torch.float64)
    labels = [0, 2, 1, 1, 0]
    strips = [lay_ends(f"t{n}", (), [[n, n + 5]], [label], [weights[label]]) for n, label in enumerate(labels)]
    objective = Labelling(head, by_label, smoothing)

    ends = torch.tensor([n + 5 for n in range(5)])
    logits = backbone.states[ends] @ head.weight.t()
    wanted = cross_entropy(logits, torch.tensor(labels), weight=by_label, label_smoothing=smoothing)
    reference = torch.autograd.grad(wanted, [backbone.states, head.weight])
    for packs in ([join(strips)], [join(strips[:2]), join(strips[2:])]):
        loss, found = gradients(objective, backbone, head, packs)
        assert loss == pytest.approx(float(wanted.detach()), rel=1e-6)
        for ours, theirs in zip(found, reference, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


def test_accuracy_is_the_share_of_labels_that_score_highest() -> None:
    backbone, head = Table(20, 6), make_head(3, 6)
    strips = [lay_ends(f"t{n}", (), [[n]], [0], [1.0]) for n in range(10)]
    pack = join(strips)
    right = int((backbone.states[:10] @ head.weight.t()).argmax(1).eq(0).sum())
    found = Labelling(head, torch.ones(3)).loss(backbone, pack, StepTotals(10.0))
    assert found.figures == {"accuracy": right}


def pair(number: int, margin: float) -> Strip:
    strip = lay_ends(f"p{number}", [1, 2], [[3, number], [4, number + 6]], [0, 0], [1.0, 1.0])
    strip.extras[MARGIN] = np.array([margin], np.float32)  # type: ignore[index]
    return strip


@pytest.mark.parametrize("centering", [0.0, 0.1])
def test_the_loss_of_pairs_is_bradley_terrys_in_one_pack_or_several(centering: float) -> None:
    backbone, head = Table(20, 6), make_head(1, 6)
    margins = [0.0, 0.5, 1.0]
    strips = [pair(number, margin) for number, margin in enumerate(margins)]
    rewards = (backbone.states @ head.weight.t()).squeeze(1)
    chosen, rejected = rewards[:3], rewards[6:9]
    bonus = centering * torch.mean((chosen + rejected) ** 2)
    wanted = -torch.log(torch.sigmoid(chosen - rejected - torch.tensor(margins))).mean() + bonus
    reference = torch.autograd.grad(wanted, [backbone.states, head.weight])
    for packs in ([join(strips)], [join(strips[:1]), join(strips[1:])]):
        loss, found = gradients(Preferring(head, centering), backbone, head, packs)
        assert loss == pytest.approx(float(wanted.detach()), rel=1e-6)
        for ours, theirs in zip(found, reference, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


def test_losses_stay_finite_where_a_head_is_very_sure() -> None:
    logits = torch.tensor([[1e4, -1e4]])
    assert label_losses(logits, torch.tensor([1]), torch.ones(2), 0.1).isfinite().all()
    assert pair_losses(torch.tensor([-1e4]), torch.tensor([1e4]), torch.zeros(1), 0.0).isfinite().all()
