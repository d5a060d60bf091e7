"""The gate of a base that was made smaller: its figures beside its original's, as a report with a verdict of its own.

The report is an evaluation as any (report.json, cases.jsonl): shown, compared and held against conditions as those are.
The verdict lies beside it, so that both are one piece of evidence. Knows no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from espalier.core.errors import InvalidInput
from espalier.core.types import EvalReport, Example
from espalier.evals.cases import Case, Evaluation, cluster_of, question_digest
from espalier.evals.run import Subject, score_cases

CONDITIONS = ("perplexity_ratio <= 1.02", "agreement >= 0.95", "divergence <= 0.02")


class Measured(Protocol):
    """One text's figures (nn/fidelity.py)."""

    @property
    def tokens(self) -> int: ...

    @property
    def perplexity_ratio(self) -> float: ...

    @property
    def agreement(self) -> float: ...

    @property
    def divergence(self) -> float: ...


@dataclass(frozen=True, slots=True)
class _Figure:
    name: str
    unit: str
    higher_is_better: bool


_FIGURES = (
    _Figure("perplexity_ratio", "times", False),
    _Figure("agreement", "ratio", True),
    _Figure("divergence", "nats", False),
)


def report_fidelity(examples: Sequence[Example], measured: Iterable[Measured], subject: Subject) -> Evaluation:
    """The report of one measurement for each example, with intervals. Raises InvalidInput for no example."""
    if not examples:
        raise InvalidInput(f"there is no example in split {subject.split}", hint="`espalier data show`")
    cases = [
        Case(
            id=example.id,
            question=question_digest(example.messages),
            answer="",
            reference="",
            cluster=cluster_of(example),
            finish_reason="stop",
            prompt_tokens=0,
            completion_tokens=each.tokens,
            values={figure.name: float(getattr(each, figure.name)) for figure in _FIGURES},
        )
        for example, each in zip(examples, measured, strict=True)
    ]
    report = EvalReport(
        subject=subject.subject,
        label=subject.label,
        dataset=subject.dataset,
        split=subject.split,
        scores=tuple(score_cases(cases, _FIGURES)),
    )
    return Evaluation(report, cases)
