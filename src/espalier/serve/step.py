"""A step as it is put together: what is left of its budget and of its time. Imports no torch; chooses no work."""

from __future__ import annotations

from math import inf

from espalier.serve.stepcost import Shape, StepCost
from espalier.serve.work import Chunk, Plan, Work


class Step:
    """Begins empty and without a limit; `turn` numbers it."""

    def __init__(self, budget_tokens: int, cost: StepCost, turn: int) -> None:
        self.plan = Plan()
        self.left = budget_tokens
        self.turn = turn
        self.owed = True  # the class served now gets a token, whatever the limit says
        self._cost = cost
        self._limit_s = inf
        self._shape = Shape()

    @property
    def limited(self) -> bool:
        """Whether its time is bounded."""
        return self._limit_s < inf

    @property
    def seconds(self) -> float:
        """How long it will take, as it is now."""
        return self._cost.predict_s(shape_of(self.plan))

    @property
    def has_time(self) -> bool:
        return not self.limited or self._cost.predict_s(self._shape) < self._limit_s

    def limit(self, limit_s: float) -> None:
        """What is added from here on may not make it longer than this, nor than any limit set before."""
        self._limit_s = min(self._limit_s, limit_s)
        self._shape = shape_of(self.plan)

    def room(self, work: Work) -> int:
        """How many of a work's wanted tokens the limit leaves room for.

        A class that is owed a token gets one, or as many of a prompt's as take no longer than one.
        """
        if not self.limited:
            return work.wanted
        now_s = self._cost.predict_s(self._shape)
        more = Shape(self._shape.rows, self._shape.prompt, self._shape.read)
        more.add(work.computed, work.computed + 1)
        one_s = self._cost.predict_s(more) - now_s
        if work.wanted == 1:
            return int(self.owed or now_s + one_s <= self._limit_s)
        fits = self._cost.count_prompt(max(self._limit_s - now_s, one_s if self.owed else 0.0), work.computed)
        return max(min(fits, work.wanted), int(self.owed))

    def take(self, work: Work, most: int) -> int:
        """Compute up to `most` of the work's wanted tokens; returns how many the budget had left for it."""
        count = min(work.wanted, self.left, most)
        if count > 0:
            end = work.computed + count
            self.plan.chunks.append(Chunk(work, work.computed, end, ends=count == work.wanted))
            self.left -= count
            self._shape.add(work.computed, end)
            self.owed = False
            work.turn = self.turn
        return count


def shape_of(plan: Plan) -> Shape:
    """What the plan's time depends on."""
    shape = Shape()
    for chunk in plan.chunks:
        shape.add(chunk.start, chunk.end)
    return shape
