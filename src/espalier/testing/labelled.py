"""How well findings fit labels: recall, coverage and precision by kind. Knows no finder and no corpus.

A label is found when a finding of its kind shares a character with it, and covered when findings of any kind hold all
of it; a finding is right when it shares a character with a label that its kind may stand for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Span = tuple[int, int, str]  # start, end (characters), and kind or label


@dataclass(slots=True)
class Figures:
    """Counts of one kind over a corpus."""

    labels: int = 0
    found: int = 0
    covered: int = 0
    findings: int = 0
    right: int = 0

    @property
    def recall(self) -> float | None:
        """Labels found, of all labels; None where there are none."""
        return self.found / self.labels if self.labels else None

    @property
    def precision(self) -> float | None:
        """Right findings, of all findings; None where there are none."""
        return self.right / self.findings if self.findings else None


def compare(
    pairs: Iterable[tuple[Sequence[Span], Sequence[Span]]], kinds: Mapping[str, str], *, also: Mapping[str, str]
) -> dict[str, Figures]:
    """Figures by kind from pairs of (labels, findings), one pair a text.

    kinds: label -> the kind that finds it. also: kind -> a further label it may rightly overlap.
    """
    figures = {kind: Figures() for kind in dict.fromkeys((*kinds.values(), *also))}
    for labels, findings in pairs:
        for start, end, label in labels:
            if label in kinds:
                kind = figures[kinds[label]]
                kind.labels += 1
                kind.found += any(start < high and low < end and name == kinds[label] for low, high, name in findings)
                kind.covered += all(any(low <= at < high for low, high, _ in findings) for at in range(start, end))
        for low, high, name in findings:
            kind = figures.setdefault(name, Figures())
            kind.findings += 1
            kind.right += any(
                start < high and low < end and (kinds.get(label) == name or also.get(name) == label)
                for start, end, label in labels
            )
    return figures
