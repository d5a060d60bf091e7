"""The gate between splits: a text that stands, exactly or nearly, on both sides is a leak, and a leak is a refusal.

Checks what is about to be written, whoever decided the splits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from espalier.core.errors import InvalidInput
from espalier.core.types import Example
from espalier.core.types.examples import Split
from espalier.data.nearness import Pair

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Leak:
    """Two examples in different splits that are too much alike."""

    first: str
    second: str
    splits: tuple[Split, Split]
    jaccard: float

    def __str__(self) -> str:
        return f"{self.first} ({self.splits[0]}) ~ {self.second} ({self.splits[1]}), Jaccard {self.jaccard:.2f}"


def find_leaks(examples: Sequence[Example], near: Sequence[Pair]) -> list[Leak]:
    """The pairs among `near` (positions of examples that are alike) whose examples stand in different splits."""
    leaks = []
    for pair in near:
        first, second = examples[pair.first], examples[pair.second]
        if first.split != second.split:
            leaks.append(Leak(first.id, second.id, (first.split, second.split), pair.jaccard))
    return leaks


def refuse_leaks(examples: Sequence[Example], near: Sequence[Pair]) -> None:
    """Raise InvalidInput naming the leaking pairs, if there are any."""
    leaks = find_leaks(examples, near)
    if not leaks:
        return
    shown = "\n".join(f"  {leak}" for leak in leaks[:_SHOWN])
    more = f"\n  and {len(leaks) - _SHOWN} more" if len(leaks) > _SHOWN else ""
    raise InvalidInput(
        f"{len(leaks)} pairs of examples are alike across splits:\n{shown}{more}",
        hint="drop one of each pair (a dedup step with a lower `near`), or split anew without the previous version",
    )
