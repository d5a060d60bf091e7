"""The losses of DPO, ORPO and KTO: pure functions of the log-probabilities of whole answers. Knows no model, no data.

An answer's log-probability is the sum over its tokens; its log-ratio is that minus the reference's. Every function
takes one number per pair or per answer and gives one loss for each; the mean over a step is the caller's.

Legend: p pairs, n answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu, sigmoid

from espalier.train.preference.names import DpoLoss, KtoLoss


@dataclass(frozen=True, slots=True)
class Pairs:
    """Log-ratios of the better and the worse answers to the reference, and their lengths in tokens; all (p,)."""

    chosen: Tensor
    rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor

    @property
    def margin(self) -> Tensor:
        return self.chosen - self.rejected

    @property
    def margin_per_token(self) -> Tensor:
        return self.chosen / self.chosen_tokens - self.rejected / self.rejected_tokens


def dpo_losses(kind: DpoLoss, pairs: Pairs, beta: float, smoothing: float = 0.0) -> Tensor:
    """The loss of each pair (p,); `smoothing` is the share of pairs thought to be the wrong way round.

    sigmoid: DPO, arXiv:2305.18290 eq. 7; with smoothing conservative DPO (Mitchell 2023, ericmitchell.ai/cdpo.pdf).
    sigmoid_norm: the same on means per token (SimPO's normalisation, arXiv:2405.14734; Tulu 3, arXiv:2411.15124).
    hinge: RSO, arXiv:2309.06657. ipo: arXiv:2310.12036 eq. 17, on means per token as its authors computed it.
    robust: arXiv:2403.00409. exo_pair: arXiv:2402.00856 eq. 16. nca_pair: arXiv:2402.05369.
    sppo_hard: arXiv:2405.00675. apo_zero, apo_down: arXiv:2408.06266 eqs. 7 and 8.
    """
    return _DPO[kind](pairs, beta, smoothing)


def odds_ratio_losses(chosen: Tensor, rejected: Tensor) -> Tensor:
    """-log sigmoid of the log odds ratio of each pair (p,), from mean log-probabilities per token.

    ORPO, arXiv:2403.07691 eqs. 4 and 7: odds(p) = p / (1 - p). A probability of 1 counts as a float32's next lower.
    """
    log_odds = (chosen - rejected) - (_log_one_minus_exp(chosen) - _log_one_minus_exp(rejected))
    return -logsigmoid(log_odds)


def kto_losses(
    kind: KtoLoss,
    ratios: Tensor,
    desirable: Tensor,
    kl: float,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """The loss of each answer (n,) from its log-ratio; `desirable` (n,) bool, `kl` the reference point, not negative.

    kto: arXiv:2402.01306 eqs. 7 and 8. apo_zero_unpaired: arXiv:2408.06266 eq. 7, which needs no reference point.
    """
    shifted = beta * (ratios - kl) if kind == "kto" else beta * ratios
    good = desirable_weight * (1 - sigmoid(shifted))
    bad = undesirable_weight * (1 - sigmoid(-shifted))
    return torch.where(desirable, good, bad)


def _sigmoid(pairs: Pairs, beta: float, smoothing: float) -> Tensor:
    return _smoothed(beta * pairs.margin, smoothing)


def _sigmoid_norm(pairs: Pairs, beta: float, smoothing: float) -> Tensor:
    return _smoothed(beta * pairs.margin_per_token, smoothing)


def _smoothed(logits: Tensor, smoothing: float) -> Tensor:
    return -(1 - smoothing) * logsigmoid(logits) - smoothing * logsigmoid(-logits)


def _robust(pairs: Pairs, beta: float, smoothing: float) -> Tensor:
    logits = beta * pairs.margin
    return (smoothing * logsigmoid(-logits) - (1 - smoothing) * logsigmoid(logits)) / (1 - 2 * smoothing)


def _hinge(pairs: Pairs, beta: float, smoothing: float) -> Tensor:
    return relu(1 - beta * pairs.margin)


def _ipo(pairs: Pairs, beta: float, smoothing: float) -> Tensor:
    return (pairs.margin_per_token - 1 / (2 * beta)).square()


def _exo_pair(pairs: Pairs, beta: float, smoothing: float) -> Tensor:
    logits = beta * pairs.margin
    share = torch.tensor(smoothing, dtype=logits.dtype, device=logits.device)
    right, wrong = logsigmoid(logits), logsigmoid(-logits)
    return right.exp() * (right - torch.log1p(-share)) + wrong.exp() * (wrong - torch.log(share))


def _nca_pair(pairs: Pairs, beta: float, smoothing: float) -> Tensor:
    chosen, rejected = beta * pairs.chosen, beta * pairs.rejected
    return -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)


def _sppo_hard(pairs: Pairs, beta: float, smoothing: float) -> Tensor:
    return (pairs.chosen - 0.5 / beta).square() + (pairs.rejected + 0.5 / beta).square()


def _apo_zero(pairs: Pairs, beta: float, smoothing: float) -> Tensor:
    return 1 - sigmoid(beta * pairs.chosen) + sigmoid(beta * pairs.rejected)


def _apo_down(pairs: Pairs, beta: float, smoothing: float) -> Tensor:
    return sigmoid(beta * pairs.chosen) + 1 - sigmoid(beta * pairs.margin)


_DPO: Mapping[DpoLoss, Callable[[Pairs, float, float], Tensor]] = {
    "sigmoid": _sigmoid,
    "sigmoid_norm": _sigmoid_norm,
    "hinge": _hinge,
    "ipo": _ipo,
    "robust": _robust,
    "exo_pair": _exo_pair,
    "nca_pair": _nca_pair,
    "sppo_hard": _sppo_hard,
    "apo_zero": _apo_zero,
    "apo_down": _apo_down,
}


def _log_one_minus_exp(x: Tensor) -> Tensor:
    """log(1 - e^x) for x < 0, by the branch that loses no digits (Maechler 2012, log1mexp)."""
    x = x.clamp(max=-torch.finfo(torch.float32).eps)
    near = x > -0.6931471805599453
    small = torch.where(near, x, -1.0)  # the branch not taken must not make NaN gradients
    large = torch.where(near, -1.0, x)
    return torch.where(near, torch.log(-torch.expm1(small)), torch.log1p(-torch.exp(large)))
