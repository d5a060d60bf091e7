"""Before and after: several evaluations of the same cases side by side, with the paired differences.

Pairing case by case takes the difficulty of the cases out of the difference, so it is surer than two intervals laid
side by side suggest. Evaluations of other cases are refused: their difference would mean nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from espalier.core.errors import InvalidInput
from espalier.core.types import Score, Spec
from espalier.evals.cases import Evaluation, has_value, values_of
from espalier.evals.intervals import difference_of
from espalier.store.disk import write_file

COMPARISON_FILE = "comparison.json"


class Change(Spec):
    """What a score gained over the baseline on the same cases, with its 95 % interval.

    `p_value` is McNemar's exact one where every case is 0 or 1. `is_better` is None while the interval holds 0.
    """

    value: float
    ci_low: float
    ci_high: float
    p_value: float | None = None
    is_better: bool | None = None


class Cell(Spec):
    """One subject's score, and its change over the baseline (None for the baseline itself)."""

    score: Score
    change: Change | None = None


class Row(Spec):
    """One metric across all subjects, in the order of `Comparison.labels`."""

    metric: str
    cells: tuple[Cell, ...]


class Comparison(Spec):
    """The first subject is the baseline. Rows named `metric/part` break a metric down."""

    dataset: str
    split: str
    n: int
    labels: tuple[str, ...]
    subjects: tuple[str, ...]
    rows: tuple[Row, ...]

    def row(self, metric: str) -> Row:
        """Raises KeyError."""
        for row in self.rows:
            if row.metric == metric:
                return row
        raise KeyError(metric)

    @property
    def main_rows(self) -> tuple[Row, ...]:
        """The rows of whole metrics, without their parts."""
        return tuple(row for row in self.rows if "/" not in row.metric)


def compare(evaluations: Sequence[Evaluation]) -> Comparison:
    """Pair every evaluation with the first. Metrics that not all have are left out.

    Raises InvalidInput unless they rest on the same cases of the same split of the same dataset version.
    """
    if not evaluations:
        raise InvalidInput("there is nothing to compare", hint="give at least one evaluation report")
    baseline = evaluations[0]
    for other in evaluations[1:]:
        _check_same_cases(baseline, other)
    names = [score.name for score in baseline.report.scores if all(_has(each, score.name) for each in evaluations)]
    return Comparison(
        dataset=baseline.report.dataset,
        split=baseline.report.split,
        n=len(baseline.cases),
        labels=tuple(each.report.label for each in evaluations),
        subjects=tuple(each.report.subject for each in evaluations),
        rows=tuple(Row(metric=name, cells=_cells(evaluations, name)) for name in names),
    )


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """Write `comparison.json`. Raises StorageFull."""
    write_file(folder / COMPARISON_FILE, comparison.model_dump_json(indent=1).encode() + b"\n")


def _cells(evaluations: Sequence[Evaluation], name: str) -> tuple[Cell, ...]:
    baseline, *others = evaluations
    changed = [Cell(score=each.report.score(name), change=_change(baseline, each, name)) for each in others]
    return (Cell(score=baseline.report.score(name)), *changed)


def _change(before: Evaluation, after: Evaluation, name: str) -> Change:
    score = after.report.score(name)
    later = {case.id: case for case in after.cases}
    held = [case for case in before.cases if has_value(case, name) and has_value(later[case.id], name)]
    found = difference_of(
        values_of(held, name),
        values_of([later[case.id] for case in held], name),
        [case.cluster for case in held],
        ratio=score.unit == "ratio",
    )
    low, high = found.interval.low, found.interval.high
    is_better = None if low <= 0 <= high else (low > 0) == score.higher_is_better
    return Change(value=found.value, ci_low=low, ci_high=high, p_value=found.p_value, is_better=is_better)


def _has(evaluation: Evaluation, name: str) -> bool:
    return any(score.name == name for score in evaluation.report.scores)


def _check_same_cases(one: Evaluation, other: Evaluation) -> None:
    a, b = one.report, other.report
    for what, left, right in (("dataset", a.dataset, b.dataset), ("split", a.split, b.split)):
        if left != right:
            raise InvalidInput(
                f"{a.label} and {b.label} were scored on different {what}s: {left[:12]} and {right[:12]}",
                hint="evaluate both on the same dataset version and split",
            )
    mine = {case.id: case.reference for case in one.cases}
    theirs = {case.id: case.reference for case in other.cases}
    if mine != theirs:
        different = min(set(mine.items()) ^ set(theirs.items()))[0]
        raise InvalidInput(
            f"{a.label} and {b.label} were scored on different cases, e.g. {different}",
            hint="evaluate both on the same examples",
        )
