"""How long a step will take, learnt from how long steps took. Pure Python; knows no tensor and no work.

    seconds = a + b * rows + c * prompt tokens + d * cached positions read

fitted by least squares on relative errors, over the last few hundred steps (exponential forgetting), each coefficient
held at zero or above: more work never takes less time. Solved by coordinate descent from the last solution (Franc,
Hlavac, Navara 2005, "Sequential coordinate-wise algorithm for the non-negative least squares problem"), so that what
recent steps say nothing about stays as it was.
"""

from __future__ import annotations

from dataclasses import dataclass

_KEEP = 0.995  # of a step's weight, at each later step: half is gone after 140
_SWEEPS = 6
_SHORTEST_S = 1e-6
# A single step that took so many times what was expected, and so long, says that the machine stood still (it slept, its
# container was paused), not how fast it is: the second such step in a row is believed.
_OUT_OF_LINE, _STOOD_STILL_S = 10.0, 1.0


@dataclass(slots=True)
class Shape:
    """What a step's time depends on."""

    rows: int = 0  # single tokens: answers under way
    prompt: int = 0  # tokens of prompts, all chunks together
    read: int = 0  # for each of all these tokens, the cached positions it attends to, summed

    def add(self, start: int, end: int) -> None:
        """One more chunk of a work: its tokens `start` to `end`."""
        count = end - start
        if count == 1:
            self.rows += 1
        else:
            self.prompt += count
        self.read += count * (start + end) // 2


class StepCost:
    """Feed it with `learn` after each step. Before the first it predicts no time at all."""

    def __init__(self) -> None:
        self._moments = [[0.0] * 4 for _ in range(4)]  # sums of feature * feature
        self._products = [0.0] * 4  # sums of feature * seconds
        self._factors = [0.0] * 4  # a, b, c, d
        self._tokens = 0.0
        self._seconds = 0.0
        self._stood_still = False  # the last step was out of line

    def predict_s(self, shape: Shape) -> float:
        """Seconds; 0 as long as nothing was learnt."""
        a, b, c, d = self._factors
        return a + b * shape.rows + c * shape.prompt + d * shape.read

    def count_prompt(self, seconds: float, start: int) -> int:
        """How many tokens of one prompt, from position `start` on, add no more than `seconds` to a step."""
        _, _, c, d = self._factors
        each_s = c + d * start
        return int(min(seconds / each_s, 1 << 30)) if each_s > 0 else 1 << 30

    @property
    def tokens_per_s(self) -> float:
        """Of the last steps, whatever they were made of; 0 as long as nothing was learnt.

        A machine that slept for an hour would seem slow for a thousand steps: a step in which it stood still is left
        out. (The factors need no such care: their errors are relative, and so long a step hardly weighs.)
        """
        return self._tokens / self._seconds if self._seconds > 0 else 0.0

    def learn(self, shape: Shape, seconds: float) -> None:
        """A step of this shape took `seconds`."""
        seconds = max(seconds, _SHORTEST_S)
        expected_s = self.predict_s(shape)
        before = self._stood_still
        self._stood_still = expected_s > 0 and seconds > max(_OUT_OF_LINE * expected_s, _STOOD_STILL_S)
        if before or not self._stood_still:
            self._tokens = self._tokens * _KEEP + shape.rows + shape.prompt
            self._seconds = self._seconds * _KEEP + seconds
        features = (1.0, float(shape.rows), float(shape.prompt), float(shape.read))
        weight = 1 / (seconds * seconds)
        for i, left in enumerate(features):
            row = self._moments[i]
            for j, right in enumerate(features):
                row[j] = row[j] * _KEEP + weight * left * right
            self._products[i] = self._products[i] * _KEEP + weight * left * seconds
        self._solve()

    def _solve(self) -> None:
        factors = self._factors
        for _ in range(_SWEEPS):
            for i, row in enumerate(self._moments):
                if row[i] > 0:
                    rest = self._products[i] - sum(row[j] * factors[j] for j in range(4) if j != i)
                    factors[i] = max(0.0, rest / row[i])
