"""DPO, ORPO and KTO as objectives: from a backbone's log-probabilities of a pack to its share of the step's loss.

Sums are taken in float64: an answer of 500 tokens has a log-probability near -500, and its difference to the
reference's is what everything hangs on. Whatever a mean is taken over (pairs, answers, learnt tokens, KTO's reference
point), it is the whole step's, so a step cut into other packs or over other processes has the same loss.

Extras of a pack: `reference` (n,) the reference's log-probability of each sequence, `verdict` (n,) for KTO.

Legend: n sequences, r rows, p pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from espalier.nn.backbone import Backbone
from espalier.nn.crossentropy import head_logp
from espalier.nn.tensors import tensor_of
from espalier.tokens.pack import Pack
from espalier.train.objective import Loss, StepTotals
from espalier.train.preference.losses import Pairs, dpo_losses, kto_losses, odds_ratio_losses
from espalier.train.preference.names import DpoLoss, KtoLoss
from espalier.train.preference.pairs import DESIRABLE, FOREIGN, UNDESIRABLE
from espalier.train.preference.part import take_sequences


def sequence_logp(backbone: Backbone, pack: Pack) -> Tensor:
    """The weighted sum of each sequence's log-probabilities, (n,) float64."""
    hidden = backbone.hidden(pack)
    logp = head_logp(hidden, backbone.head(), tensor_of(pack.targets, hidden))
    return _sums(logp.double() * tensor_of(pack.weights, logp), pack)


@dataclass(frozen=True, slots=True)
class Dpo:
    """arXiv:2305.18290 and its kin. Sequences come in pairs: the better answer, the worse."""

    kind: DpoLoss = "sigmoid"
    beta: float = 0.1
    smoothing: float = 0.0
    rpo_alpha: float = 0.0  # weight of the chosen answers' mean negative log-likelihood per token, arXiv:2404.19733

    @property
    def measures(self) -> bool:
        return self.rpo_alpha > 0

    def weigh(self, pack: Pack) -> float:
        return pack.sequence_count / 2

    def measure(self, backbone: Backbone, pack: Pack) -> tuple[float, ...]:
        return (float(pack.weights[pack.sequences % 2 == 0].sum(dtype="float64")),)

    def loss(self, backbone: Backbone, pack: Pack, step: StepTotals) -> Loss:
        logp = sequence_logp(backbone, pack)
        ratios, tokens = logp - tensor_of(pack.extras["reference"], logp), _lengths(pack, logp)
        pairs = Pairs(ratios[0::2], ratios[1::2], tokens[0::2], tokens[1::2])
        total = dpo_losses(self.kind, pairs, self.beta, self.smoothing).sum() / step.weight
        if self.rpo_alpha > 0:
            total = total - self.rpo_alpha * logp[0::2].sum() / step.measured[0]
        rewards = self.beta * ratios.detach()
        return Loss(total, _reward_figures(rewards[0::2], rewards[1::2]))


@dataclass(frozen=True, slots=True)
class Orpo:
    """arXiv:2403.07691. Sequences of a document: the better answer, the worse, and the prompt if it is learnt too."""

    beta: float = 0.1
    prompt_nll: bool = False

    @property
    def measures(self) -> bool:
        return True

    def weigh(self, pack: Pack) -> float:
        return pack.sequence_count / self._branches

    def measure(self, backbone: Backbone, pack: Pack) -> tuple[float, ...]:
        return (float(pack.weights[pack.sequences % self._branches != 1].sum(dtype="float64")),)

    def loss(self, backbone: Backbone, pack: Pack, step: StepTotals) -> Loss:
        logp = sequence_logp(backbone, pack).view(-1, self._branches)
        means = logp / _lengths(pack, logp).view(-1, self._branches)
        chosen, rejected = means[:, 0], means[:, 1]
        learnt = logp[:, 0::2].sum()  # the better answer, and the prompt
        odds = odds_ratio_losses(chosen, rejected).sum()
        total = self.beta * odds / step.weight - learnt / step.measured[0]
        figures = _reward_figures(self.beta * chosen.detach(), self.beta * rejected.detach())
        shown = torch.stack([odds.detach(), -learnt.detach() * step.weight / step.measured[0]]).tolist()
        return Loss(total, {**figures, "odds_ratio_loss": shown[0], "nll": shown[1]})

    @property
    def _branches(self) -> int:
        return 3 if self.prompt_nll else 2


@dataclass(frozen=True, slots=True)
class Kto:
    """arXiv:2402.01306. Each sequence has a verdict; foreign ones estimate how far the policy is from the reference."""

    kind: KtoLoss = "kto"
    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    @property
    def measures(self) -> bool:
        return True

    def weigh(self, pack: Pack) -> float:
        return float((pack.extras["verdict"] != FOREIGN).sum())

    def measure(self, backbone: Backbone, pack: Pack) -> tuple[float, ...]:
        """Sum and number of the foreign log-ratios, number of desirable and of undesirable answers."""
        verdict = pack.extras["verdict"]
        counts = float((verdict == DESIRABLE).sum()), float((verdict == UNDESIRABLE).sum())
        foreign = verdict == FOREIGN
        if self.kind != "kto" or not foreign.any():
            return 0.0, 0.0, *counts
        logp = sequence_logp(backbone, take_sequences(pack, foreign))
        ratios = logp - tensor_of(pack.extras["reference"][foreign], logp)
        return float(ratios.sum()), float(foreign.sum()), *counts

    def loss(self, backbone: Backbone, pack: Pack, step: StepTotals) -> Loss:
        own = pack.extras["verdict"] != FOREIGN
        logp = sequence_logp(backbone, take_sequences(pack, own))
        ratios = logp - tensor_of(pack.extras["reference"][own], logp)
        desirable = tensor_of(pack.extras["verdict"][own] == DESIRABLE, logp)
        distance, foreign, good, bad = step.measured
        kl = max(0.0, distance / foreign) if foreign else 0.0
        losses = kto_losses(self.kind, ratios, desirable, kl, self.beta, self.desirable_weight, self.undesirable_weight)
        rewards = self.beta * ratios.detach()
        sums = torch.stack([rewards[desirable].sum(), rewards[~desirable].sum()]).tolist()
        figures = {"kl": kl * len(rewards)}
        for name, total, count in zip(("reward_chosen", "reward_rejected"), sums, (good, bad), strict=True):
            if count:  # of the step; a mean over those of its kind
                figures[name] = total * step.weight / count
        if good and bad:
            figures["margin"] = figures["reward_chosen"] - figures["reward_rejected"]
        return Loss(losses.sum() / step.weight, figures)


def _sums(values: Tensor, pack: Pack) -> Tensor:
    """Sums of `values` (r,) by sequence, (n,); always added in the same order, on any device."""
    counts = torch.bincount(torch.from_numpy(pack.sequences), minlength=pack.sequence_count).to(values.device)
    return torch.segment_reduce(values, "sum", lengths=counts)


def _lengths(pack: Pack, beside: Tensor) -> Tensor:
    """The weight of each sequence's tokens, (n,) float64: their number where every message weighs 1."""
    return _sums(tensor_of(pack.weights, beside).double(), pack)


def _reward_figures(chosen: Tensor, rejected: Tensor) -> dict[str, float]:
    """Sums over pairs of both rewards, their difference, and how often the better answer has the higher; all (p,)."""
    margin = chosen - rejected
    sums = torch.stack([chosen.sum(), rejected.sum(), margin.sum(), (margin > 0).double().sum()])
    return dict(zip(("reward_chosen", "reward_rejected", "margin", "accuracy"), sums.tolist(), strict=True))
