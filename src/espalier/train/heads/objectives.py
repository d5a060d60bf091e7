"""What heads are trained to: cross-entropy over labels, and Bradley-Terry over pairs. Knows no data and no loop.

Both read the hidden state of the last token of each sequence, the one row it has.

Legend: r rows, n labels, p pairs, m model width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from espalier.nn.backbone import Backbone
from espalier.nn.scorehead import ScoreHead
from espalier.nn.tensors import tensor_of
from espalier.tokens.pack import Pack
from espalier.train.objective import Loss, MeanByWeight, StepTotals

MARGIN = "margin"  # of each pair, in a pack's extras


def label_losses(logits: Tensor, targets: Tensor, label_weights: Tensor, smoothing: float) -> Tensor:
    """The loss of each row (r,), each already times its label's weight; torch's cross_entropy before its mean.

    logits (r, n), targets (r) int64, label_weights (n). With smoothing e the target is 1 - e + e/n on the label and
    e/n on every other, each label counting by its own weight.
    """
    logp = torch.log_softmax(logits, -1)
    right = -logp.gather(1, targets[:, None]).squeeze(1) * label_weights[targets]
    if not smoothing:
        return right
    spread = -(logp * label_weights).sum(1) / logits.shape[1]
    return (1 - smoothing) * right + smoothing * spread


def pair_losses(chosen: Tensor, rejected: Tensor, margins: Tensor, centering: float) -> Tensor:
    """-log sigmoid(chosen - rejected - margin) + centering (chosen + rejected)^2, all (p,).

    Bradley and Terry 1952; with margins Touvron et al. 2023, arXiv:2307.09288 section 3.2.2; centering Eisenstein et
    al. 2023, arXiv:2312.09244.
    """
    losses = -logsigmoid(chosen - rejected - margins)
    return losses + centering * (chosen + rejected).square() if centering else losses


@dataclass(frozen=True, slots=True)
class Labelling(MeanByWeight):
    """Cross-entropy of a label for each text, the mean taken by the labels' weights, as torch takes it."""

    head: ScoreHead
    label_weights: Tensor  # (n,)
    smoothing: float = 0.0

    def loss(self, backbone: Backbone, pack: Pack, step: StepTotals) -> Loss:
        logits = self.head.logits(backbone.hidden(pack))
        targets = tensor_of(pack.targets, logits)
        weights = self.label_weights.to(logits)
        losses = label_losses(logits, targets, weights, self.smoothing)
        hits = (logits.detach().argmax(1) == targets) * weights[targets]
        return Loss(losses.sum() / step.weight, {"accuracy": float(hits.sum())})


@dataclass(frozen=True, slots=True)
class Preferring:
    """The better answer of each pair is to be given more than the worse; rows come in pairs, the better one first."""

    head: ScoreHead
    centering: float = 0.0

    @property
    def measures(self) -> bool:
        return False

    def weigh(self, pack: Pack) -> float:
        return len(pack.rows) / 2

    def measure(self, backbone: Backbone, pack: Pack) -> tuple[float, ...]:
        return ()

    def loss(self, backbone: Backbone, pack: Pack, step: StepTotals) -> Loss:
        rewards = self.head.logits(backbone.hidden(pack)).squeeze(1)
        chosen, rejected = rewards[0::2], rewards[1::2]
        margins = tensor_of(pack.extras[MARGIN], rewards).to(rewards.dtype)
        losses = pair_losses(chosen, rejected, margins, self.centering)
        gaps, total = (chosen - rejected).detach(), rewards.detach()
        figures = {"accuracy": float((gaps > 0).sum()), "margin": float(gaps.sum()), "reward": float(total.sum()) / 2}
        return Loss(losses.sum() / step.weight, figures)
