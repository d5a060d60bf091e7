"""What a version must have before it may be approved, as a list of clauses: each met or not, and why.

Pure: it looks at evidence that was collected before (evidence.py) and changes nothing. A page shows the clauses; an
approval (approvals.py) requires all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from espalier.core.config import PolicyConfig
from espalier.core.types import EvalReport, ModelVersion, Spec

HELD_OUT = "test"


class PolicyClause(Spec):
    """One demand of the policy. `why` says what was found, whether it is met or not."""

    name: str
    ok: bool
    why: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that the policy looks at."""

    version: ModelVersion
    reports: Sequence[EvalReport]
    has_dataset: bool  # the dataset is named, and the store holds it with every byte it was recorded with
    adapter_base_digest: str = ""  # what the adapter says it was trained on; empty without an adapter


def check_policy(policy: PolicyConfig, evidence: Evidence, approver: str) -> list[PolicyClause]:
    """Every clause that the policy turns on, in a fixed order; `approver` is who would approve now."""
    demands: list[tuple[bool, str, Callable[[], tuple[bool, str]]]] = [
        (policy.four_eyes, "four_eyes", lambda: _four_eyes(evidence.version, approver)),
        (policy.require_report, "held_out_report", lambda: _report(evidence, policy.min_cases)),
        (policy.require_dataset, "dataset", lambda: _dataset(evidence)),
        (bool(evidence.version.adapter), "adapter_base", lambda: _adapter_base(evidence)),
    ]
    clauses = []
    for is_on, name, check in demands:
        if is_on:
            ok, why = check()
            clauses.append(PolicyClause(name=name, ok=ok, why=why))
    return clauses


def is_same_person(one: str, other: str) -> bool:
    """Whether two names are one identity: letter case and outer spaces do not make two people."""
    return one.strip().casefold() == other.strip().casefold()


def subject_of(version: ModelVersion) -> str:
    """What a report about this version names as its subject."""
    return f"adapter:{version.adapter}" if version.adapter else version.base


def _four_eyes(version: ModelVersion, approver: str) -> tuple[bool, str]:
    if is_same_person(approver, version.submitted_by):
        return False, f"{version.submitted_by} submitted it, so someone else has to approve"
    return True, f"submitted by {version.submitted_by}, seen by {approver}"


def _report(evidence: Evidence, min_cases: int) -> tuple[bool, str]:
    subject = subject_of(evidence.version)
    own = [report for report in evidence.reports if report.subject == subject]
    held_out = [report for report in own if report.split == HELD_OUT]
    if not held_out:
        seen = sorted({f"{report.label} on {report.split}" for report in evidence.reports})
        return False, f"no report of this model on split {HELD_OUT}; there is {', '.join(seen) or 'none at all'}"
    best = max(held_out, key=_cases_of)
    cases = _cases_of(best)
    if cases < min_cases:
        return False, f"the report rests on {cases} held-out cases, {min_cases} are wanted"
    return True, f"{best.label}: {cases} held-out cases of dataset {best.dataset[:12]}"


def _cases_of(report: EvalReport) -> int:
    """The fewest cases any whole metric rests on; parts of a metric (`metric/part`) do not count."""
    return min((score.n for score in report.scores if "/" not in score.name), default=0)


def _dataset(evidence: Evidence) -> tuple[bool, str]:
    digest = evidence.version.dataset
    if not digest:
        return False, "the dataset it was trained on is not named"
    return (
        evidence.has_dataset,
        f"dataset {digest[:12]} {'is' if evidence.has_dataset else 'is not'} whole in the store",
    )


def _adapter_base(evidence: Evidence) -> tuple[bool, str]:
    trained_on, base = evidence.adapter_base_digest, evidence.version.base_digest
    if not evidence.version.adapter:
        return True, f"it has no adapter: it is the base {base[:12]} itself"
    if trained_on == base:
        return True, f"trained on {evidence.version.base} ({base[:12]})"
    return False, f"trained on base {trained_on[:12] or 'unknown'}, registered with {base[:12]}"
