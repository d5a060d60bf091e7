"""A deployment: one name clients ask for, and how its requests are shared among model versions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from espalier.core.types.spec import Spec


class Variant(Spec):
    """A version that answers a share of the requests: its weight of the sum of all weights."""

    model: str  # "model:support@v2"
    weight: float = Field(1.0, gt=0)


class Canary(Spec):
    """A candidate whose share grows step by step, and what takes it back."""

    candidate: str  # "model:support@v3"
    steps_percent: tuple[float, ...] = (5.0, 25.0, 50.0, 100.0)
    step: int = 0  # which of them is in force
    step_s: float = 600.0  # a step lasts at least so long
    min_requests: int = 20  # and until the candidate has answered so many in it
    max_error_rate: float = 0.02  # rolled back when the candidate's is surely above this and above the others'
    max_latency_ratio: float = 1.5  # rolled back when it is surely slower than the others' p95 by this factor

    @property
    def share(self) -> float:
        """What the candidate gets now, 0 to 1."""
        return self.steps_percent[self.step] / 100


class Shadow(Spec):
    """A version that answers a copy of a share of the requests, unheard."""

    model: str
    share: float = Field(1.0, gt=0, le=1)


class Deployment(Spec):
    """One revision of a deployment. Every change makes the next; none is ever changed."""

    name: str
    revision: int
    variants: tuple[Variant, ...]
    canary: Canary | None = None
    shadows: tuple[Shadow, ...] = ()
    below: int = 0  # the revision a roll-back goes back to, 0 for none
    action: Literal["split", "canary", "step", "finish", "rollback", "shadow"]
    reason: str = ""
    actor: str
    at_ms: int
