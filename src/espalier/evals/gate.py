"""A gate: conditions an evaluation must meet before anything is built on it.

    xml_valid >= 0.9                        the score
    xml_valid.ci_low >= 0.9                 a field of it: value, ci_low, ci_high, n
    xml_fields - baseline >= 0.3            the paired difference from the baseline
    (xml_fields - baseline).ci_low > 0      a field of that: value, ci_low, ci_high, p_value

Every clause is evaluated, also after one has failed, so that a verdict says all that is missing.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from espalier.core.errors import GateFailed, InvalidInput, did_you_mean
from espalier.core.types import Spec
from espalier.evals.cases import Evaluation
from espalier.evals.compare import Change, Comparison, compare
from espalier.store.disk import write_file

VERDICT_FILE = "verdict.json"
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
_SCORE_FIELDS = ("value", "ci_low", "ci_high", "n")
_CHANGE_FIELDS = ("value", "ci_low", "ci_high", "p_value")
_FIELD = "|".join(dict.fromkeys(_SCORE_FIELDS + _CHANGE_FIELDS))
_METRIC = r"[A-Za-z_][^\s()<>=]*?"
_CONDITION = re.compile(
    rf"""\s*(?: \(\s*(?P<grouped>{_METRIC})\s+-\s+baseline\s*\)(?:\.(?P<field_of_change>{_FIELD}))?
            | (?P<changed>{_METRIC})\s+-\s+baseline
            | (?P<plain>{_METRIC})(?:\.(?P<field>{_FIELD}))? )
        \s*(?P<operator>>=|<=|>|<)\s*(?P<bound>[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*""",
    re.VERBOSE,
)


class Condition(Spec):
    """A parsed condition; `text` is how it was written."""

    text: str
    metric: str
    is_change: bool
    field: str
    operator: str
    bound: float


class Clause(Spec):
    """A condition with the value it met."""

    text: str
    value: float
    passed: bool


class Verdict(Spec):
    """`passed` when every clause did."""

    passed: bool
    subject: str
    clauses: tuple[Clause, ...]

    @property
    def summary(self) -> str:
        """One line a clause."""
        marks = [f"{'passed' if each.passed else 'FAILED'}  {each.text}  ({each.value:.4g})" for each in self.clauses]
        return "\n".join(marks)


def parse_condition(text: str) -> Condition:
    """Raises InvalidInput for what is no condition."""
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise InvalidInput(
            f"{text!r} is not a condition",
            hint="write e.g. `xml_valid.ci_low >= 0.9` or `xml_fields - baseline >= 0.3`",
        )
    change = found["grouped"] or found["changed"]
    return Condition(
        text=" ".join(text.split()),
        metric=change or found["plain"],
        is_change=bool(change),
        field=found["field_of_change"] or found["field"] or "value",
        operator=found["operator"],
        bound=float(found["bound"]),
    )


def judge(conditions: Sequence[str], candidate: Evaluation, baseline: Evaluation | None = None) -> Verdict:
    """Hold the candidate against every condition.

    Raises InvalidInput for a condition that cannot be read, names a metric that was not measured, or needs a baseline
    when there is none; and for no condition at all, because a gate that asks nothing is a mistake.
    """
    if not conditions:
        raise InvalidInput("a gate without conditions lets everything through", hint="add `xml_valid.ci_low >= 0.9`")
    parsed = [parse_condition(text) for text in conditions]
    table = compare([baseline, candidate]) if baseline is not None else compare([candidate])
    clauses = []
    for condition in parsed:
        value = _look_up(condition, table, candidate)
        passed = _OPERATORS[condition.operator](value, condition.bound)
        clauses.append(Clause(text=condition.text, value=value, passed=passed))
    return Verdict(
        passed=all(clause.passed for clause in clauses), subject=candidate.report.subject, clauses=tuple(clauses)
    )


def require(verdict: Verdict) -> None:
    """Raise GateFailed, listing the clauses that failed, unless the verdict passed."""
    failed = [f"{clause.text} (it is {clause.value:.4g})" for clause in verdict.clauses if not clause.passed]
    if failed:
        raise GateFailed(
            f"{len(failed)} of {len(verdict.clauses)} conditions failed: {'; '.join(failed)}",
            hint="look at the cases that went wrong, train again or change the condition",
        )


def write_verdict(folder: Path, verdict: Verdict) -> None:
    """Write `verdict.json`. Raises StorageFull."""
    write_file(folder / VERDICT_FILE, verdict.model_dump_json(indent=1).encode() + b"\n")


def _look_up(condition: Condition, table: Comparison, candidate: Evaluation) -> float:
    if condition.is_change:
        return _look_up_change(condition, table)
    try:
        score = candidate.report.score(condition.metric)
    except KeyError:
        raise _unknown(condition, [score.name for score in candidate.report.scores]) from None
    if condition.field not in _SCORE_FIELDS:
        raise InvalidInput(f"a score has no {condition.field}: {condition.text}", hint=", ".join(_SCORE_FIELDS))
    return float(getattr(score, condition.field))


def _look_up_change(condition: Condition, table: Comparison) -> float:
    if len(table.labels) < 2:
        raise InvalidInput(f"there is no baseline for {condition.text!r}", hint="give the gate a baseline report")
    try:
        change: Change | None = table.row(condition.metric).cells[-1].change
    except KeyError:
        raise _unknown(condition, [row.metric for row in table.rows]) from None
    value = getattr(change, condition.field, None)
    if value is None:
        raise InvalidInput(
            f"the difference has no {condition.field}: {condition.text}",
            hint="p_value is for metrics that are 0 or 1 in every case" if condition.field == "p_value" else "",
        )
    return float(value)


def _unknown(condition: Condition, known: Sequence[str]) -> InvalidInput:
    return InvalidInput(
        f"{condition.metric} was not measured: {condition.text}", hint=did_you_mean(condition.metric, known)
    )
