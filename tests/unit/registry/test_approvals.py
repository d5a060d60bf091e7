from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from espalier.core.config import PolicyConfig
from espalier.core.errors import Conflict, EspalierError, GateFailed, InvalidInput, PermissionDenied
from espalier.registry.approvals import approve, reject, review
from espalier.registry.versions import get_version
from espalier.store.store import Store

POLICY = PolicyConfig()


def test_a_second_person_approves_and_it_is_on_record(store: Store, make: Any) -> None:
    pending = make.version()
    done = approve(store, POLICY, pending.ref, actor="bob", comment="looked at 20 cases")
    assert done.status == "Approved"
    assert [(each.actor, each.decision, each.comment) for each in done.approvals] == [
        ("bob", "Approved", "looked at 20 cases")
    ]
    assert get_version(store, pending.ref) == done
    event = store.audit.list()[0]
    assert (event.actor, event.action, event.subject) == ("bob", "models.approve", pending.ref)
    store.audit.verify()


@pytest.mark.parametrize("actor", ["ann", "Ann "])
def test_the_submitter_may_not_approve_and_the_try_is_on_record(store: Store, make: Any, actor: str) -> None:
    pending = make.version()
    with pytest.raises(PermissionDenied, match="ann submitted it"):
        approve(store, POLICY, pending.ref, actor=actor)
    assert get_version(store, pending.ref) == pending
    assert store.audit.list()[0].action == "models.approve.refused"
    assert approve(store, PolicyConfig(four_eyes=False), pending.ref, actor=actor).status == "Approved"


def test_what_the_policy_misses_is_listed_and_nothing_is_decided(store: Store, make: Any) -> None:
    pending = make.version(reports=(make.report("adapter:other"),), dataset="")
    with pytest.raises(GateFailed, match=r"held_out_report: no report of this model.*dataset: the dataset"):
        approve(store, POLICY, pending.ref, actor="bob")
    assert [clause.ok for clause in review(store, POLICY, pending, "bob")] == [True, False, False, True]
    assert get_version(store, pending.ref).status == "PendingManualApproval"


def test_a_dataset_whose_bytes_changed_is_no_evidence(store: Store, make: Any) -> None:
    pending = make.version()
    dataset = store.artifacts.get(pending.dataset)
    for path in store.workspace.blobs.rglob("*"):
        if path.is_file() and path.read_bytes() == store.blobs.read(dataset.files[0].sha256):
            path.chmod(0o644)
            path.write_bytes(b"other")
            break
    with pytest.raises(GateFailed, match="is not whole in the store"):
        approve(store, POLICY, pending.ref, actor="bob")


def test_the_submitter_may_reject_but_never_without_a_reason(store: Store, make: Any) -> None:
    pending = make.version()
    with pytest.raises(InvalidInput, match="reason"):
        reject(store, pending.ref, actor="ann", comment=" ")
    assert reject(store, pending.ref, actor="ann", comment="wrong data").status == "Rejected"
    assert store.audit.list()[0].action == "models.reject"


def test_a_decision_stands(store: Store, make: Any) -> None:
    approved, rejected = make.approved("w1"), make.version("w2")
    reject(store, rejected.ref, actor="bob", comment="no")
    for ref in (approved.ref, rejected.ref):
        for act in (
            lambda ref: approve(store, POLICY, ref, actor="eve"),
            lambda ref: reject(store, ref, actor="eve", comment="x"),
        ):
            with pytest.raises(Conflict, match=r"is already .* by bob"):
                act(ref)


def test_of_two_who_decide_at_once_one_succeeds_and_the_other_is_told(store: Store, make: Any) -> None:
    for round_number in range(5):
        pending = make.version(f"w{round_number}")
        gate = threading.Barrier(4)
        outcomes: list[str] = []

        def decide(act: Callable[[], Any], gate: threading.Barrier = gate, outcomes: list[str] = outcomes) -> None:
            gate.wait()
            try:
                outcomes.append(act().status)
            except EspalierError as error:
                outcomes.append(type(error).__name__)

        acts: list[Callable[[], Any]] = [
            lambda ref=pending.ref: approve(store, POLICY, ref, actor="bob"),
            lambda ref=pending.ref: approve(store, POLICY, ref, actor="cat"),
            lambda ref=pending.ref: reject(store, ref, actor="dan", comment="no"),
            lambda ref=pending.ref: reject(store, ref, actor="eve", comment="no"),
        ]
        threads = [threading.Thread(target=decide, args=(act,)) for act in acts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes.count("Conflict") == 3
        final = get_version(store, pending.ref)
        assert final.status in outcomes
        assert len(final.approvals) == 1 and final.approvals[0].decision == final.status
        decided = [event for event in store.audit.list(subject=pending.ref) if event.action != "models.register"]
        assert [event.actor for event in decided] == [final.approvals[0].actor]
    store.audit.verify()
