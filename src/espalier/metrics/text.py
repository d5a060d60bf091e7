"""Metrics of plain text."""

from __future__ import annotations

import re2

from espalier.core.errors import InvalidInput
from espalier.metrics.metric import Answered, Measurement, Metric, Ratio


def exact_match(collapse_space: bool = True) -> Metric:
    """1 when the answer is the reference. With `collapse_space`, runs of white space count as one, the ends as none."""

    def measure(case: Answered) -> Measurement:
        answer, reference = case.answer, case.reference
        if collapse_space:
            answer, reference = " ".join(answer.split()), " ".join(reference.split())
        return Measurement(1.0) if answer == reference else Measurement(0.0, why="differs from the reference")

    return Ratio("exact_match", measure)


def regex(pattern: str, whole: bool = False) -> Metric:
    """1 when `pattern` (RE2 syntax: no look-around, no runaway) is found in the answer, or with `whole` is all of it.

    Raises InvalidInput for what is no pattern.
    """
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        raise InvalidInput(f"not a regular expression: {error}", where="regex.pattern") from None
    matches = compiled.fullmatch if whole else compiled.search

    def measure(case: Answered) -> Measurement:
        return Measurement(1.0) if matches(case.answer) else Measurement(0.0, why=f"does not match {pattern}")

    return Ratio("regex", measure)
