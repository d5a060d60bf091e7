"""`Objective`: what a method minimises, as a pure function of what a backbone says of a pack. Knows no loop.

The mean over a step is taken by the objective's own weight, which is known before anything is computed: so a step may
be cut into packs, threads and processes in any way and its loss and gradient are the same sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from espalier.nn.backbone import Backbone
from espalier.nn.crossentropy import head_cross_entropy
from espalier.nn.tensors import tensor_of
from espalier.tokens.pack import Pack


@dataclass(frozen=True, slots=True)
class StepTotals:
    """Sums over all packs of a step: their weight, and what the objective measured before the loss."""

    weight: float
    measured: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Loss:
    """A pack's share of the step's mean loss; `figures` are sums over the pack, shown as means by the step's weight."""

    value: Tensor
    figures: Mapping[str, float] = field(default_factory=dict)


class Objective(Protocol):
    """One method's loss."""

    @property
    def measures(self) -> bool:
        """Whether `measure` has anything to say."""
        ...

    def weigh(self, pack: Pack) -> float:
        """What the pack counts in the step's mean: supervised weight, pairs, sequences."""
        ...

    def measure(self, backbone: Backbone, pack: Pack) -> tuple[float, ...]:
        """Numbers to be summed over the whole step before any loss is taken, without gradient."""
        ...

    def loss(self, backbone: Backbone, pack: Pack, step: StepTotals) -> Loss:
        """The pack's share of the step's loss, differentiable in the backbone's parameters."""
        ...


class MeanByWeight:
    """What objectives share that take the mean by supervised weight and need to see nothing of a step beforehand."""

    __slots__ = ()

    @property
    def measures(self) -> bool:
        return False

    def weigh(self, pack: Pack) -> float:
        return float(pack.weights.sum())

    def measure(self, backbone: Backbone, pack: Pack) -> tuple[float, ...]:
        return ()


@dataclass(frozen=True, slots=True)
class Likelihood(MeanByWeight):
    """Weighted mean negative log-likelihood of the supervised tokens: fine-tuning and continued pre-training alike."""

    def loss(self, backbone: Backbone, pack: Pack, step: StepTotals) -> Loss:
        hidden = backbone.hidden(pack)
        targets, weights = tensor_of(pack.targets, hidden), tensor_of(pack.weights / step.weight, hidden)
        return Loss(head_cross_entropy(hidden, backbone.head(), targets, weights))
