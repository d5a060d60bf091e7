"""The loss of a student: its teacher's distribution at every learnt token, mixed with the token itself.

Knows no teacher: what it said stands in the packs' extras. Knows no data and no loop.

Legend: r rows, k tokens the teacher found likeliest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from espalier.nn.backbone import Backbone
from espalier.nn.crossentropy import Head, head_cross_entropy, head_logp
from espalier.nn.tensors import tensor_of
from espalier.tokens.pack import Pack
from espalier.train.distillation.divergence import Divergence, divergences
from espalier.train.objective import Loss, MeanByWeight, StepTotals

IDS, LOGP = "teacher_ids", "teacher_logp"  # extras: int32 and float32, (r, k) each


@dataclass(frozen=True, slots=True)
class Imitation(MeanByWeight):
    """alpha T^2 divergence + (1 - alpha) cross-entropy, each the mean over supervised weight.

    T^2 keeps the gradient's size when the temperature changes (Hinton et al. 2015, section 2.1).
    """

    divergence: Divergence
    temperature: float
    alpha: float
    whole: bool  # the teacher's k tokens are the vocabulary

    def loss(self, backbone: Backbone, pack: Pack, step: StepTotals) -> Loss:
        hidden, head = backbone.hidden(pack), backbone.head()
        weights = tensor_of(pack.weights / step.weight, hidden)
        soft = (self._apart(hidden, head, pack) * weights).sum()
        hard = head_cross_entropy(hidden, head, tensor_of(pack.targets, hidden), weights) if self.alpha < 1 else None
        value = self.alpha * self.temperature**2 * soft
        if hard is not None:
            value = value + (1 - self.alpha) * hard
        figures = {"divergence": float(soft.detach()) * step.weight}
        if hard is not None:
            figures["cross_entropy"] = float(hard.detach()) * step.weight
        return Loss(value, figures)

    def _apart(self, hidden: Tensor, head: Head, pack: Pack) -> Tensor:
        """The divergence at each row, (r,)."""
        ids = tensor_of(pack.extras[IDS], hidden).long()
        teacher = tensor_of(pack.extras[LOGP], hidden)
        student = head_logp(hidden, cooled(head, self.temperature), ids)
        return divergences(self.divergence, student, teacher, whole=self.whole)


def cooled(head: Head, temperature: float) -> Head:
    """A head whose logits are divided by `temperature`; of one with a softcap, the cap with them."""
    if temperature == 1.0:
        return head
    softcap = None if head.softcap is None else head.softcap / temperature
    return replace(head, scale=head.scale / temperature, softcap=softcap)
