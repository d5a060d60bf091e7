"""`Learner`: a backbone, perhaps a head that learns beside it, and their objective: what the loop sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from espalier.nn.backbone import Backbone
from espalier.tokens.pack import Pack
from espalier.train.method import TrainedHead
from espalier.train.objective import Objective, StepTotals
from espalier.train.parallel import Share, World


@dataclass(frozen=True, slots=True)
class Learner:
    """What learns, and how a pack's share of a step is computed."""

    backbone: Backbone
    objective: Objective
    head: TrainedHead | None = None

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """All tensors that learn, by name; those of a head under `head.`."""
        own = dict(self.backbone.parameters)
        if self.head is not None:
            own |= {f"head.{name}": tensor for name, tensor in self.head.parameters.items()}
        return own

    def total(self, world: World, packs: Sequence[Pack]) -> StepTotals:
        """The sums over a step that its loss needs first; nothing is computed when the objective measures nothing."""

        def measure(index: int) -> Share:
            with torch.no_grad():  # a thread's own switch
                return Share(self.objective.measure(self.backbone, packs[index]))

        measured = [share.numbers for share in world.each(len(packs), measure)] if self.objective.measures else []
        weight = float(sum(self.objective.weigh(pack) for pack in packs))
        return StepTotals(weight, tuple(map(sum, zip(*measured, strict=True))))

    def gradient(self, pack: Pack, step: StepTotals, parameters: Sequence[Tensor]) -> Share:
        """The pack's part of the step's loss, its figures, and its part of every gradient."""
        loss = self.objective.loss(self.backbone, pack, step)
        gradients = torch.autograd.grad(loss.value, parameters, allow_unused=True)
        return Share((float(loss.value.detach()),), loss.figures, gradients)

    def look(self, pack: Pack, step: StepTotals) -> Share:
        """As `gradient`, without gradients."""
        with torch.no_grad():
            loss = self.objective.loss(self.backbone, pack, step)
        return Share((float(loss.value),), loss.figures)
