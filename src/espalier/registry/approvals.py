"""Approving and rejecting: from PendingManualApproval to Approved or Rejected, once, by someone who answers for it.

The status is a pointer moved by compare-and-set, in one transaction with the approval's record and its audit event: of
two people who decide at the same moment one succeeds, and the other is told so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from espalier.core.config import PolicyConfig
from espalier.core.errors import Conflict, EspalierError, GateFailed, InvalidInput, PermissionDenied
from espalier.core.ids import now_ms
from espalier.core.types import Approval, ModelVersion
from espalier.registry.evidence import collect_evidence
from espalier.registry.policy import PolicyClause, check_policy
from espalier.registry.versions import (
    APPROVAL,
    PENDING,
    check_actor,
    get_version,
    record_id,
    status_pointer,
)
from espalier.store.store import Store


def approve(store: Store, policy: PolicyConfig, ref: str, *, actor: str, comment: str = "") -> ModelVersion:
    """Approve a pending version.

    Raises PermissionDenied when four eyes forbid it, GateFailed with every other clause that is not met, Conflict when
    it is decided already. A refusal is an audit event too.
    """
    who = check_actor(actor)
    version = _pending(store, ref)
    refusal = _refusal(version, review(store, policy, version, who))
    if refusal is not None:
        store.audit.append(who, "models.approve.refused", version.ref, {"why": refusal.message})
        raise refusal
    return _decide(store, version, "Approved", who, comment)


def reject(store: Store, ref: str, *, actor: str, comment: str) -> ModelVersion:
    """Reject a pending version, for a reason; also by the one who submitted it. Raises InvalidInput, Conflict."""
    who = check_actor(actor)
    if not comment.strip():
        raise InvalidInput("a rejection needs a reason", hint="say what has to change")
    return _decide(store, _pending(store, ref), "Rejected", who, comment)


def review(store: Store, policy: PolicyConfig, version: ModelVersion, approver: str) -> list[PolicyClause]:
    """The clauses of the policy as they stand for this approver."""
    return check_policy(policy, collect_evidence(store, version), approver)


def _pending(store: Store, ref: str) -> ModelVersion:
    version = get_version(store, ref)
    if version.status != PENDING:
        raise _already(version)
    return version


def _decide(
    store: Store, version: ModelVersion, decision: Literal["Approved", "Rejected"], actor: str, comment: str
) -> ModelVersion:
    approval = Approval(actor=actor, decision=decision, comment=comment, at_ms=now_ms())
    action = "models.approve" if decision == "Approved" else "models.reject"
    try:
        with store.transaction():
            store.records.set_pointer(status_pointer(version), decision, expect=PENDING, actor=actor)
            store.records.put(APPROVAL, record_id(version), approval)
            store.audit.append(actor, action, version.ref, {"comment": comment})
    except Conflict:
        raise _already(get_version(store, version.ref)) from None
    return get_version(store, version.ref)


def _already(version: ModelVersion) -> Conflict:
    by = f" by {version.approvals[0].actor}" if version.approvals else ""
    return Conflict(
        f"{version.ref} is already {version.status}{by}",
        hint="a decision stands; register a new version to decide anew",
    )


def _refusal(version: ModelVersion, clauses: Sequence[PolicyClause]) -> EspalierError | None:
    unmet = [clause for clause in clauses if not clause.ok]
    if not unmet:
        return None
    said = "; ".join(f"{clause.name}: {clause.why}" for clause in unmet)
    if any(clause.name == "four_eyes" for clause in unmet):
        return PermissionDenied(f"{version.ref} may not be approved: {said}", hint="ask a colleague to approve it")
    return GateFailed(f"{version.ref} may not be approved: {said}", hint="register it anew with what is missing")
