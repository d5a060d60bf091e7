"""What each cache slot holds, and which of it a new prompt can begin with. Imports no torch, moves no tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from espalier.serve.work import Work

# Shorter common beginnings are cheaper to compute than to look up and copy.
SHORTEST_PREFIX_TOKENS = 16


@dataclass(slots=True)
class _Held:
    """A slot's cache holds the first `count` of `tokens`, computed under `adapter`."""

    adapter: str = ""
    tokens: Sequence[int] = ()
    count: int = 0


class Prefixes:
    """What was computed stays readable after its work is done, until the slot is written anew."""

    def __init__(self, slots: int) -> None:
        self._held = [_Held() for _ in range(slots)]

    def place(self, work: Work, count: int) -> None:
        """`work.slot` now holds the first `count` of the work's tokens, and what it computes from here on."""
        self._held[work.slot] = _Held(work.adapter, work.tokens, count)

    def grow(self, work: Work) -> None:
        """The work's slot holds all it has computed."""
        self._held[work.slot].count = work.computed

    def forget(self, adapter: str | None = None) -> None:
        """Drop what was cached under `adapter`, or everything."""
        for held in self._held:
            if adapter is None or held.adapter == adapter:
                held.count = 0

    def find(self, work: Work) -> tuple[int, int]:
        """(slot, tokens) of the longest cached beginning of the work, (-1, 0) for none; its last token is always
        computed anew."""
        best = (-1, 0)
        head = work.tokens[:SHORTEST_PREFIX_TOKENS]
        for slot, held in enumerate(self._held):
            most = min(held.count, len(work.tokens) - 1)
            if most < SHORTEST_PREFIX_TOKENS or most <= best[1] or held.adapter != work.adapter:
                continue
            if held.tokens[:SHORTEST_PREFIX_TOKENS] == head:
                best = max(best, (slot, common_prefix(held.tokens, work.tokens, most)), key=lambda found: found[1])
        return best


def common_prefix(one: Sequence[int], other: Sequence[int], most: int) -> int:
    """How many of the first `most` items are equal, by bisection over slices (compared in C)."""
    low, high = 0, most  # the first `low` are equal; beyond `high` they are not, or not looked at
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
