"""What a check found: findings with their place and what to do, counted by rule, the first of each shown."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from espalier.core.types import Spec

SHOWN = 20  # findings kept of each rule; all are counted


class Finding(Spec):
    """One thing a service would refuse (error), or that may be meant otherwise (warning)."""

    level: Literal["error", "warning"]
    rule: str
    where: str  # train.jsonl:12, or train.jsonl
    message: str
    hint: str


class CheckReport(Spec):
    """The outcome of a check against one target."""

    target: str
    title: str
    formats: tuple[str, ...]
    sources: tuple[str, ...]
    read_on: str
    unverified: tuple[str, ...]
    records: dict[str, int]  # by role: train, validation
    counts: dict[str, int]  # findings by rule, shown or not
    accepted: bool  # nothing was found that would be refused
    findings: tuple[Finding, ...]

    def to_text(self) -> str:
        """For a terminal: the verdict, the findings by place, what was not checked, where the limits stand."""
        told = " and ".join(f"{count} {role}" for role, count in self.records.items()) or "no"
        head = f"{self.title}: {'accepted' if self.accepted else 'would be refused'} ({told} records)"
        lines = [head]
        for finding in self.findings:
            lines.append(f"{finding.level} {finding.where}: {finding.message}")
            lines += [f"  next: {finding.hint}"] if finding.hint else []
        shown = Counter(finding.rule for finding in self.findings)
        lines += [
            f"... and {count - shown[rule]} more of {rule}"
            for rule, count in self.counts.items()
            if count > shown[rule]
        ]
        if self.unverified:
            lines.append(f"not checked, no published figure could be verified: {', '.join(self.unverified)}")
        return "\n".join([*lines, f"limits as published on {self.read_on}: {', '.join(self.sources)}"])


class Findings:
    """Collects findings: all counted, the first `SHOWN` of each rule kept, so that memory stays bounded."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.kept: list[Finding] = []

    def add(self, level: Literal["error", "warning"], rule: str, where: str, message: str, hint: str = "") -> None:
        """Note one finding."""
        self.counts[rule] += 1
        if self.counts[rule] <= SHOWN:
            self.kept.append(Finding(level=level, rule=rule, where=where, message=message, hint=hint))

    def ordered(self) -> tuple[Finding, ...]:
        """Errors first, then as they were found."""
        return tuple(sorted(self.kept, key=lambda finding: finding.level != "error"))

    def totals(self) -> dict[str, int]:
        """Findings by rule, sorted."""
        return dict(sorted(self.counts.items()))
