"""The gate between splits: a text that stands, exactly or nearly, on both sides is a leak, and a leak is a refusal.

Checks what is about to be written, whoever decided the splits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from espalier.core.errors import InvalidInput
from espalier.core.types.examples import Split
from espalier.data.nearness import Shingles, find_pairs

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Placed:
    """One example as the gate sees it."""

    id: str
    split: Split
    shingles: Shingles


@dataclass(frozen=True, slots=True)
class Leak:
    """Two examples in different splits that are too much alike."""

    first: str
    second: str
    splits: tuple[Split, Split]
    jaccard: float

    def __str__(self) -> str:
        return f"{self.first} ({self.splits[0]}) ~ {self.second} ({self.splits[1]}), Jaccard {self.jaccard:.2f}"


def find_leaks(examples: Sequence[Placed], near: float) -> list[Leak]:
    """Every pair across splits with a Jaccard index of at least `near` (1 = the same shingles)."""
    return [
        Leak(
            examples[pair.first].id, examples[pair.second].id, _splits(examples, pair.first, pair.second), pair.jaccard
        )
        for pair in find_pairs([example.shingles for example in examples], near)
        if examples[pair.first].split != examples[pair.second].split
    ]


def refuse_leaks(examples: Sequence[Placed], near: float) -> None:
    """Raise InvalidInput naming the pairs, if there is any leak."""
    leaks = find_leaks(examples, near)
    if not leaks:
        return
    shown = "\n".join(f"  {leak}" for leak in leaks[:_SHOWN])
    more = f"\n  and {len(leaks) - _SHOWN} more" if len(leaks) > _SHOWN else ""
    raise InvalidInput(
        f"{len(leaks)} pairs of examples are alike across splits:\n{shown}{more}",
        hint="drop one of each pair (a dedup step with a lower `near`), or split anew without the previous version",
    )


def _splits(examples: Sequence[Placed], first: int, second: int) -> tuple[Split, Split]:
    return examples[first].split, examples[second].split
