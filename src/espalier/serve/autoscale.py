"""How many replicas a base should have: a pure policy over what its engine says of its load. Imports no torch.

Wanted is what the tokens in flight call for at the target of each replica, and, where requests wait too long for a
slot, more than there are, in proportion to the wait: the rule of Kubernetes' HorizontalPodAutoscaler
(ceil(replicas x metric / target), within a tolerance, the largest over metrics), with its stabilisation window on the
way down. Knows no process and no clock.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from espalier.core.ports import EngineLoad

# A metric this near its target asks for no change, so that counts do not swing around it.
_TOLERANCE = 0.1
# A long queue says that there are too few, not by how much: what waits may be served as soon as one more is there.
_MOST_GROWTH = 2.0


@dataclass(frozen=True, slots=True)
class ScaleRule:
    """Between which numbers, by which targets, how fast."""

    min_replicas: int = 1
    max_replicas: int = 1
    target_queue_s: float = 1.0
    target_tokens_in_flight: int = 8192  # per replica
    cooldown_up_s: float = 10.0
    cooldown_s: float = 120.0


class Autoscaler:
    """`decide` is asked again and again, with a time that never goes back."""

    def __init__(self, rule: ScaleRule) -> None:
        self.rule = rule
        self._wishes: deque[tuple[float, int]] = deque()  # (when, wanted) within the last cooldown
        self._grew_s = -math.inf
        self._began_s: float | None = None

    def decide(self, now_s: float, load: EngineLoad, replicas: int) -> int:
        """The number of replicas there should be, given those there are (starting ones included)."""
        rule = self.rule
        wanted = min(max(self._want(load, replicas), rule.min_replicas), rule.max_replicas)
        self._remember(now_s, wanted)
        if replicas < rule.min_replicas or replicas > rule.max_replicas:
            return min(max(replicas, rule.min_replicas), rule.max_replicas)
        if wanted > replicas:
            if replicas > 0 and now_s - self._grew_s < rule.cooldown_up_s:
                return replicas
            self._grew_s = now_s
            return wanted
        if self._began_s is None or now_s - self._began_s < rule.cooldown_s:
            return replicas  # not watched for long enough to know that fewer would do
        return min(replicas, max(wish for _, wish in self._wishes))

    def _want(self, load: EngineLoad, replicas: int) -> int:
        if load.running + load.waiting == 0:
            return 0
        by_tokens = self._scale(load.tokens_in_flight / self.rule.target_tokens_in_flight, replicas)
        over = min(load.queue_s / self.rule.target_queue_s, _MOST_GROWTH)
        by_queue = self._scale(replicas * over, replicas) if over > 1 else 0
        return max(1, by_tokens, by_queue)

    @staticmethod
    def _scale(wanted: float, replicas: int) -> int:
        near = replicas > 0 and abs(wanted / replicas - 1) <= _TOLERANCE
        return replicas if near else math.ceil(wanted)

    def _remember(self, now_s: float, wanted: int) -> None:
        if self._began_s is None:
            self._began_s = now_s
        self._wishes.append((now_s, wanted))
        while self._wishes[0][0] < now_s - self.rule.cooldown_s:
            self._wishes.popleft()
