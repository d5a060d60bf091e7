"""What annotators disagree on, the most first: for a person to have the last word on."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable

from espalier.core.types import Spec
from espalier.data.annotation.record import AnnotationRecord, Rating, Value, keep_newest
from espalier.data.annotation.report import say


class Disagreement(Spec):
    """One example on which at least two annotators differ; `disagreement` from 0 to 1."""

    example: str
    question: str
    kind: str
    disagreement: float
    said: dict[str, str]  # annotator -> value, in words
    records: tuple[AnnotationRecord, ...]


def queue_disagreements(records: Iterable[AnnotationRecord], *, least: float = 0.0) -> list[Disagreement]:
    """Examples without a last word (`gold`) whose annotators differ by more than `least`, the most at odds first."""
    asked: dict[tuple[str, str], list[AnnotationRecord]] = defaultdict(list)
    settled = set()
    for record in keep_newest(records):
        asked[record.example, record.question].append(record)
        if record.gold:
            settled.add((record.example, record.question))
    found = []
    for (example, question), said in asked.items():
        distance = disagreement_of([record.value for record in said])
        if (example, question) in settled or distance <= least:
            continue
        words = {record.annotator: describe(record.value) for record in said}
        found.append(
            Disagreement(
                example=example,
                question=question,
                kind=said[0].value.kind,
                disagreement=distance,
                said=words,
                records=tuple(said),
            )
        )
    return sorted(found, key=lambda each: (-each.disagreement, each.example, each.question))


def disagreement_of(values: Iterable[Value]) -> float:
    """The mean distance of every two values: 0 when all say the same (or one said anything), 1 at the most."""
    pairs = list(itertools.combinations(values, 2))
    return sum(_distance(one, other) for one, other in pairs) / len(pairs) if pairs else 0.0


def describe(value: Value) -> str:
    """A value in words."""
    if isinstance(value, Rating):
        return f"{value.value} of {value.scale}"
    if value.kind == "span":
        return ", ".join(f"{span.label} {span.start}-{span.end}" for span in value.spans) or "no span"
    return str(say(value))


def _distance(one: Value, other: Value) -> float:
    if one.kind != other.kind:
        return 1.0
    if isinstance(one, Rating) and isinstance(other, Rating):
        return abs((one.value - 1) / (one.scale - 1) - (other.value - 1) / (other.scale - 1))
    first, second = say(one), say(other)
    if isinstance(first, frozenset) and isinstance(second, frozenset):
        marked = len(first) + len(second)
        return 1 - 2 * len(first & second) / marked if marked else 0.0
    return 0.0 if first == second else 1.0
