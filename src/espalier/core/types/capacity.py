"""Provisioned throughput: capacity of a model that is paid for and held, whether it is used or not."""

from __future__ import annotations

from typing import Literal

from espalier.core.types.spec import Spec

Term = Literal["none", "month", "sixmonths"]
TERM_DAYS: dict[Term, int] = {"none": 0, "month": 30, "sixmonths": 180}


class Reservation(Spec):
    """Model units held for a model: slots, and tokens a minute that go before everybody else's."""

    name: str  # asked for as `provisioned:NAME`
    model: str  # as it was named: "support@production", "support", "builtin:seedling"
    base: str  # on whose engine it is held; where an alias moves to a version on another base, it moves along
    model_units: int
    slots: int
    tokens_per_minute: int
    term: Term = "none"
    created_ms: int
    expires_ms: int = 0  # 0 = until it is released
    actor: str

    def is_active(self, at_ms: int) -> bool:
        return not self.expires_ms or at_ms < self.expires_ms


class MeasuredCapacity(Spec):
    """What one engine of a base did with all its slots busy."""

    base: str
    tokens_per_minute: int  # prompts and answers together
    slots: int
    prompt_tokens: int  # of one request of the measurement
    answer_tokens: int
    seconds: float
    machine: str
    at_ms: int
    actor: str
