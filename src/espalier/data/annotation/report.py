"""Agreement of records: for every question asked, between every two annotators and among all of them.

Which figure fits follows from what was asked: kappa for labels and preferences, quadratically weighted kappa for
ratings (alpha: ordinal), F1 for spans, the share of equal texts for repairs. Rules and models are annotators like any.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence

from espalier.core.types import Spec
from espalier.data.annotation.agreement import (
    Estimate,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    share_equal,
    span_f1,
)
from espalier.data.annotation.record import AnnotationRecord, Labels, Preference, Rating, Spans, Value, keep_newest

_CHOICES = ("label", "pairwise", "rating")  # what chance-corrected figures fit


class Figure(Spec):
    """A figure with its 95 % interval; None where chance alone would agree always, or nothing was shared."""

    name: str
    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int


class PairAgreement(Spec):
    """Two annotators on the examples both answered."""

    first: str
    second: str
    equal: Figure
    figure: Figure


class QuestionAgreement(Spec):
    """One question: `examples` with at least two annotators, and figures over all of them."""

    question: str
    kind: str
    annotators: dict[str, int]  # annotator -> examples answered
    examples: int
    figures: tuple[Figure, ...]
    pairs: tuple[PairAgreement, ...]


def measure_agreement(records: Iterable[AnnotationRecord]) -> list[QuestionAgreement]:
    """For every question and kind of value, by name; what an annotator said last counts."""
    asked: dict[tuple[str, str], list[AnnotationRecord]] = defaultdict(list)
    for record in keep_newest(records):
        asked[record.question, record.value.kind].append(record)
    return [_measure(question, kind, asked[question, kind]) for question, kind in sorted(asked)]


def say(value: Value) -> Hashable:
    """A value as something that is equal when two annotators say the same."""
    if isinstance(value, Rating):
        return value.value
    if isinstance(value, Labels):
        return " | ".join(value.labels)
    if isinstance(value, Spans):
        return frozenset((span.start, span.end, span.label) for span in value.spans)
    return value.better if isinstance(value, Preference) else value.text.strip()


def _measure(question: str, kind: str, records: Sequence[AnnotationRecord]) -> QuestionAgreement:
    by_annotator: dict[str, dict[str, Hashable]] = defaultdict(dict)
    by_example: dict[str, list[Hashable]] = defaultdict(list)
    for record in records:
        by_annotator[record.annotator][record.example] = say(record.value)
        by_example[record.example].append(say(record.value))
    order = _order(records)
    pairs = []
    for first, second in itertools.combinations(sorted(by_annotator), 2):
        shared = sorted(by_annotator[first].keys() & by_annotator[second].keys())
        if shared:
            one, other = ([by_annotator[name][example] for example in shared] for name in (first, second))
            pairs.append(_compare(first, second, one, other, kind, order))
    units = [values for _, values in sorted(by_example.items()) if len(values) > 1]
    return QuestionAgreement(
        question=question,
        kind=kind,
        annotators={name: len(said) for name, said in sorted(by_annotator.items())},
        examples=len(units),
        figures=tuple(_sum_up(units, kind, order)) if kind in _CHOICES and units else (),
        pairs=tuple(pairs),
    )


def _compare(
    first: str, second: str, one: list[Hashable], other: list[Hashable], kind: str, order: Sequence[Hashable]
) -> PairAgreement:
    equal = share_equal(one, other)
    if kind == "span":
        spans = ([frozenset(each) for each in said if isinstance(each, frozenset)] for said in (one, other))
        figure = _name("span F1", span_f1(*spans))
    elif kind == "rating":
        figure = _name("weighted kappa", cohen_kappa(one, other, weights="quadratic", categories=order))
    elif kind == "repair":
        figure = _name("equal", equal)
    else:
        figure = _name("kappa", cohen_kappa(one, other, categories=order))
    return PairAgreement(first=first, second=second, equal=_name("equal", equal), figure=figure)


def _sum_up(units: Sequence[Sequence[Hashable]], kind: str, order: Sequence[Hashable]) -> list[Figure]:
    """Alpha over all examples; Fleiss' kappa over those that the commonest number of annotators answered."""
    ordinal = kind == "rating"
    alpha = krippendorff_alpha(units, scale="ordinal" if ordinal else "nominal", categories=order)
    raters = max(Counter(len(unit) for unit in units).items(), key=lambda each: (each[1], each[0]))[0]
    place = {category: i for i, category in enumerate(order)}
    counts = []
    for unit in units:
        if len(unit) == raters:
            row = [0] * len(order)
            for value in unit:
                row[place[value]] += 1
            counts.append(row)
    name = "ordinal alpha" if ordinal else "alpha"
    return [_name(name, alpha), _name(f"Fleiss' kappa of {raters}", fleiss_kappa(counts))]


def _order(records: Sequence[AnnotationRecord]) -> list[Hashable]:
    """Every category in order: a rating's whole scale, else what was said."""
    scales = [record.value.scale for record in records if isinstance(record.value, Rating)]
    if scales:
        return list(range(1, max(scales) + 1))
    return sorted({say(record.value) for record in records}, key=repr)


def _name(name: str, found: Estimate) -> Figure:
    return Figure(name=name, value=found.value, ci_low=found.ci_low, ci_high=found.ci_high, n=found.n)
