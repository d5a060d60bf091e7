"""Is a canary as good as what it would replace? Outcomes in, a verdict out. Knows no clock, no store and no model.

It is taken back when its errors are *surely* too many (Wilson's lower bound above the allowed rate and above the
others' rate, so that an engine that fails everybody blames nobody), or when it is *surely* slow: the same bound of the
share of its answers that take longer than the others' 95th percentile, times what is allowed, is above 5 %. It goes on
when its step has lasted and enough requests were answered.

What breaks late in a long, busy step hardly moves the figures of the whole. So the last requests are judged by
themselves, each of them once: whenever the candidate has answered a slice of 50 (or `min_requests`, if that is more),
and once more before it goes on, that slice is held against what the others did in the very same time, and it is taken
back when both of two exact tests are sure

    errors    more failed than the allowed rate explains (the binomial tail, Clopper and Pearson), and than chance gives
              one of two sides that fail alike (Fisher's exact test)
    latency   more answers took longer than what is allowed times the others' 95th percentile, of the step or of that
              time, whichever is longer, than 5 % explain (the binomial tail); and of the slowest answers of both sides,
              the candidate's divided by what is allowed, it has more than chance gives (Fisher's exact test)

The k-th slice is tested at 0.001 * 6 / (pi * k) ** 2, shared by the two, and all of them sum to 0.001: by the union
bound, that is how likely a step, however long, takes back by its slices a candidate that is as good as allowed. The
whole is looked at again and again, which makes 95 % worth less the longer it lasts; beyond 200 requests its interval is
one of 99 %. What that saves is more than the slices cost: in simulated steps false roll-backs were rarer than by the
whole alone at 95 %. All of it takes requests to fail independently of each other.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from espalier.core.types import Canary
from espalier.metrics.proportion import binomial_tail, fisher_tail, wilson

# Answers of each side whose latencies are kept. The last of each would tell of different times, since the others have
# more; so they are drawn from all of the step.
_KEPT = 2_000
_FEWEST = 3  # one or two failures or slow answers may be anybody's
_TAIL = 0.05  # the share of answers beyond the 95th percentile
_SLICE = 50  # requests of the candidate that are judged by themselves, or as many as `min_requests`
_LEVEL = 0.001  # how often all slices of a step together may take back a sound candidate
_LONG = 200  # requests from which on the whole is judged at 99 %


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
    confidence = 0.95 if candidate.asked <= _LONG else 0.99
    if candidate.failed >= _FEWEST:
        surely = wilson(candidate.failed, candidate.asked, confidence).low
        if surely > max(canary.max_error_rate, others.error_rate):
            return Verdict(
                "rollback",
                f"{candidate.failed} of {candidate.asked} requests failed ({candidate.error_rate:.1%}); "
                f"{canary.max_error_rate:.1%} are allowed, the others are at {others.error_rate:.1%}",
            )
    slow_ms = canary.max_latency_ratio * max(1, others.p95_ms())
    slow = sum(latency > slow_ms for latency in candidate.latencies_ms)
    enough = min(len(candidate.latencies_ms), len(others.latencies_ms)) >= canary.min_requests
    if enough and slow >= _FEWEST and wilson(slow, len(candidate.latencies_ms), confidence).low > _TAIL:
        return Verdict(
            "rollback",
            f"{slow} of {len(candidate.latencies_ms)} answers took longer than {slow_ms:.0f} ms, "
            f"{canary.max_latency_ratio:g} times what 95 % of the others' took",
        )
    if lasted_s >= canary.step_s and candidate.asked >= canary.min_requests:
        return Verdict("step", f"{candidate.asked} requests at {canary.share:.0%}, {candidate.failed} failed")
    return Verdict("wait")


def judge_slice(canary: Canary, candidate: Outcomes, others: Outcomes, number: int, usual_ms: int = 0) -> Verdict:
    """The verdict on what both sides did while the candidate answered the `number`-th slice of a step, from 1.

    usual_ms: the others' 95th percentile in all of the step.
    """
    level = _LEVEL * 6 / (math.pi * number) ** 2 / 2
    if candidate.failed >= _FEWEST:
        too_many = binomial_tail(candidate.failed, candidate.asked, canary.max_error_rate)
        more_than_others = fisher_tail(candidate.failed, candidate.asked, others.failed, others.asked)
        if max(too_many, more_than_others if others.asked else 0.0) < level:
            return Verdict(
                "rollback",
                f"{candidate.failed} of its last {candidate.asked} requests failed ({candidate.error_rate:.1%}); "
                f"{canary.max_error_rate:.1%} are allowed, the others were at {others.error_rate:.1%} in that time",
            )
    limit_ms = canary.max_latency_ratio * max(1, usual_ms, others.p95_ms())
    slow = sum(latency > limit_ms for latency in candidate.latencies_ms)
    if slow < _FEWEST or not others.latencies_ms:
        return Verdict("wait")
    too_many = binomial_tail(slow, len(candidate.latencies_ms), _TAIL)
    if max(too_many, _compare_slowest(candidate, others, canary.max_latency_ratio)) < level:
        return Verdict(
            "rollback",
            f"{slow} of its last {len(candidate.latencies_ms)} answers took longer than {limit_ms:.0f} ms, "
            f"{canary.max_latency_ratio:g} times what 95 % of the others' took",
        )
    return Verdict("wait")


def _compare_slowest(candidate: Outcomes, others: Outcomes, ratio: float) -> float:
    """Fisher's p-value that of both sides' slowest answers so many are the candidate's, its times divided by `ratio`.

    How many are looked at depends on how many answers there are and not on how long they took, as the test demands.
    """
    eased = [latency / ratio for latency in candidate.latencies_ms]
    pool = sorted([*eased, *others.latencies_ms])
    edge = pool[-max(len(eased) // 2, round(_TAIL * len(pool))) - 1]
    slow, others_slow = sum(each > edge for each in eased), sum(each > edge for each in others.latencies_ms)
    return fisher_tail(slow, len(eased), others_slow, len(others.latencies_ms))


@dataclass(slots=True)
class Step:
    """What is seen of every version during a step: all of it, and of the slice under way."""

    whole: dict[str, Outcomes] = field(default_factory=lambda: defaultdict(Outcomes))
    recent: dict[str, Outcomes] = field(default_factory=lambda: defaultdict(Outcomes))
    slices: int = 0

    def add(self, model: str, latency_ms: int, *, failed: bool) -> None:
        self.whole[model].add(latency_ms, failed=failed)
        self.recent[model].add(latency_ms, failed=failed)

    def judge(self, canary: Canary, lasted_s: float) -> Verdict:
        """The verdict on a step that has lasted `lasted_s`: on the whole first, then on a slice that is full."""
        whole, others_whole = _sides(self.whole, canary.candidate)
        verdict = judge(canary, whole, others_whole, lasted_s)
        asked = self.recent[canary.candidate].asked
        is_due = asked >= max(_SLICE, canary.min_requests) or (verdict.action == "step" and asked)
        if verdict.action == "rollback" or not is_due:
            return verdict
        candidate, others = _sides(self.recent, canary.candidate)
        self.slices += 1
        self.recent = defaultdict(Outcomes)
        late = judge_slice(canary, candidate, others, self.slices, others_whole.p95_ms())
        return late if late.action == "rollback" else verdict


def _sides(seen: Mapping[str, Outcomes], candidate: str) -> tuple[Outcomes, Outcomes]:
    others = join([outcomes for model, outcomes in seen.items() if model != candidate])
    return seen.get(candidate, Outcomes()), others
