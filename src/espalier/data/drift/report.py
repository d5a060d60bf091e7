"""`DriftReport`: what comparing two populations says, test by test, and what to do next. Light to import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from espalier.core.types import Spec

Verdict = Literal["ok", "warn", "alarm"]
WHOLE = "everything"
_RANK = {"alarm": 0, "warn": 1, "too few": 2, "ok": 3}
_NEXT = {
    "ok": "nothing to do; run it again when there are new prompts",
    "warn": "look at the rows of these slices, and run it again with more of them before acting",
    "alarm": "look at the rows of these slices; if they are wanted, add such rows to the dataset, train and evaluate "
    "on them",
}


class DriftTest(Spec):
    """One test of one slice.

    `statistic` is PSI, the KS distance, the Jensen-Shannon distance or the squared MMD. `p` is how often chance alone
    gives as much; `corrected` is that after Holm's correction for all tests of the report.
    """

    slice: str
    test: str
    statistic: float
    p: float
    corrected: float
    verdict: Verdict
    because: str


class DriftSlice(Spec):
    """One slice, and how many rows each side has of it."""

    name: str
    reference: int
    current: int
    verdict: Literal["ok", "warn", "alarm", "too few"]


class DriftReport(Spec):
    """Reference against current: everything, then slice by slice. `slices` and `tests` stand worst first."""

    reference: str = ""
    current: str = ""
    verdict: Literal["ok", "warn", "alarm", "too few"]
    slices: tuple[DriftSlice, ...]
    tests: tuple[DriftTest, ...]
    notes: tuple[str, ...] = ()

    def to_text(self) -> str:
        """For a terminal: the verdict, the slices, the tests, what to do next."""
        return f"{self.describe()}\nnext: {self.advice()}"

    def advice(self) -> str:
        """What to do next."""
        return _NEXT.get(self.verdict, "collect more rows: a verdict needs `min_rows` on both sides")

    def describe(self) -> str:
        """The verdict, the slices, the tests that warn or alarm, and the others of everything."""
        head = f"{self.verdict.upper()}: {self.current or 'current'} against {self.reference or 'reference'}"
        slices = [("slice", "reference", "current", "verdict")]
        slices += [(one.name, str(one.reference), str(one.current), one.verdict) for one in self.slices]
        tests = [("verdict", "slice", "test", "statistic", "p", "because")]
        tests += [
            (one.verdict, one.slice, one.test, f"{one.statistic:.4f}", _tell_p(one.corrected), one.because)
            for one in self.tests
            if one.verdict != "ok" or one.slice == WHOLE
        ]
        silent = len(self.tests) + 1 - len(tests)
        parts = [head, *_align(slices)]
        if self.tests:
            parts += ["", *_align(tests)]
        if silent:
            parts.append(f"  and {silent} tests of slices that are ok")
        if self.notes:
            parts += ["", *self.notes]
        return "\n".join(parts)

    def alarms(self, least: Verdict = "alarm") -> list[DriftTest]:
        """The tests that came out as `least` or worse."""
        return [test for test in self.tests if _RANK[test.verdict] <= _RANK[least]]


def rank(verdict: str) -> int:
    """0 for the worst."""
    return _RANK[verdict]


def _tell_p(p: float) -> str:
    return "<0.0001" if p < 0.0001 else f"{p:.4f}"


def _align(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)).rstrip() for row in rows]
