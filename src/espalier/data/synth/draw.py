"""`Draw`: the few ways in which made-up text rolls its dice. Knows nothing of what is drawn."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Generic, TypeVar

T = TypeVar("T")

UPPER = "ABCDEFGHJKLMNPQRSTUVWXYZ"  # no I and no O: people misread them, so serials avoid them
DIGITS = "0123456789"


class Draw:
    """A seeded source of choices. Two with the same seed and the same calls give the same text on every machine."""

    __slots__ = ("random", "rng")

    def __init__(self, seed: int | str) -> None:
        self.rng = random.Random(seed)
        self.random = self.rng.random

    def pick(self, items: Sequence[T]) -> T:
        """One item, each as likely. (`Random.choice` costs three times as much.)"""
        return items[int(self.random() * len(items))]

    def chance(self, p: float) -> bool:
        return self.random() < p

    def between(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both possible."""
        return low + int(self.random() * (high - low + 1))

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """`count` distinct places of `items`, in random order; all of them when there are fewer."""
        if count >= len(items):
            return self.shuffled(items)
        return self.rng.sample(items, count)

    def shuffled(self, items: Sequence[T]) -> list[T]:
        result = list(items)
        self.rng.shuffle(result)
        return result

    def digits(self, count: int) -> str:
        """`count` digits, the first not zero."""
        low = 10 ** (count - 1)
        return str(low + int(self.random() * 9 * low))

    def letters(self, count: int) -> str:
        """`count` upper-case letters."""
        return "".join([self.pick(UPPER) for _ in range(count)])

    def weighted(self, table: Weighted[T]) -> T:
        """One item of the table, each as likely as its weight says."""
        return table.items[bisect_right(table.edges, self.random() * table.edges[-1])]


class Weighted(Generic[T]):
    """A table of choices with weights, summed up once. Choices of weight 0 are left out."""

    __slots__ = ("edges", "items")

    def __init__(self, weights: dict[T, float]) -> None:
        self.items = tuple(item for item, weight in weights.items() if weight > 0)
        self.edges = tuple(accumulate(weight for weight in weights.values() if weight > 0))
