"""Is a canary as good as what it would replace? Outcomes in, a verdict out. Knows no clock, no store and no model.

It is taken back when its errors are *surely* too many (Wilson's lower bound above the allowed rate and above the
others' rate, so that an engine that fails everybody blames nobody), or when it is *surely* slow: the same bound of the
share of its answers that take longer than the others' 95th percentile, times what is allowed, is above 5 %. It goes on
when its step has lasted and enough requests were answered.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from espalier.core.types import Canary
from espalier.metrics.proportion import wilson

# Answers of each side whose latencies are kept. The last of each would tell of different times, since the others have
# more; so they are drawn from all of the step.
_KEPT = 2_000
_FEWEST = 3  # one or two failures or slow answers may be anybody's
_TAIL = 0.05  # the share of answers beyond the 95th percentile


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with the canary now, and why."""

    action: Literal["wait", "step", "rollback"]
    reason: str = ""


@dataclass(slots=True)
class Outcomes:
    """How one side's requests ended during a step."""

    asked: int = 0
    failed: int = 0
    latencies_ms: list[int] = field(default_factory=list)  # of answers drawn evenly from all of them
    _draw: random.Random = field(default_factory=lambda: random.Random(0))

    @property
    def answered(self) -> int:
        return self.asked - self.failed

    def add(self, latency_ms: int, *, failed: bool) -> None:
        self.asked += 1
        self.failed += failed
        if failed:
            return
        if len(self.latencies_ms) < _KEPT:
            self.latencies_ms.append(latency_ms)
        elif (place := self._draw.randrange(self.answered)) < _KEPT:  # Vitter 1985, algorithm R
            self.latencies_ms[place] = latency_ms

    @property
    def error_rate(self) -> float:
        return self.failed / self.asked if self.asked else 0.0

    def p95_ms(self) -> int:
        """0 when nothing was answered."""
        ranked = sorted(self.latencies_ms)
        return ranked[min(len(ranked) - 1, int(0.95 * len(ranked)))] if ranked else 0


def join(sides: Sequence[Outcomes]) -> Outcomes:
    """Several versions as one side: of each so many latencies as it has of the answers."""
    joined = Outcomes(sum(side.asked for side in sides), sum(side.failed for side in sides))
    share = min(1.0, _KEPT / joined.answered) if joined.answered else 0.0
    for side in sides:
        kept = min(len(side.latencies_ms), round(share * side.answered))
        joined.latencies_ms += random.Random(0).sample(side.latencies_ms, kept)
    return joined


def judge(canary: Canary, candidate: Outcomes, others: Outcomes, lasted_s: float) -> Verdict:
    """The verdict on a step that has lasted `lasted_s`."""
    if candidate.failed >= _FEWEST:
        surely = wilson(candidate.failed, candidate.asked).low
        if surely > max(canary.max_error_rate, others.error_rate):
            return Verdict(
                "rollback",
                f"{candidate.failed} of {candidate.asked} requests failed ({candidate.error_rate:.1%}); "
                f"{canary.max_error_rate:.1%} are allowed, the others are at {others.error_rate:.1%}",
            )
    slow_ms = canary.max_latency_ratio * max(1, others.p95_ms())
    slow = sum(latency > slow_ms for latency in candidate.latencies_ms)
    enough = min(len(candidate.latencies_ms), len(others.latencies_ms)) >= canary.min_requests
    if enough and slow >= _FEWEST and wilson(slow, len(candidate.latencies_ms)).low > _TAIL:
        return Verdict(
            "rollback",
            f"{slow} of {len(candidate.latencies_ms)} answers took longer than {slow_ms:.0f} ms, "
            f"{canary.max_latency_ratio:g} times what 95 % of the others' took",
        )
    if lasted_s >= canary.step_s and candidate.asked >= canary.min_requests:
        return Verdict("step", f"{candidate.asked} requests at {canary.share:.0%}, {candidate.failed} failed")
    return Verdict("wait")
