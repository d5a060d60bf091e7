"""Metrics of plain text."""

from __future__ import annotations

from espalier.evals.metrics.metric import Answered, Measurement, Metric, Ratio


def exact_match(collapse_space: bool = True) -> Metric:
    """1 when the answer is the reference. With `collapse_space`, runs of white space count as one, the ends as none."""

    def measure(case: Answered) -> Measurement:
        answer, reference = case.answer, case.reference
        if collapse_space:
            answer, reference = " ".join(answer.split()), " ".join(reference.split())
        return Measurement(1.0) if answer == reference else Measurement(0.0, why="differs from the reference")

    return Ratio("exact_match", measure)
