"""The life of versions as a state machine: whatever order people act in, the rules hold."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from espalier.core.config import PolicyConfig
from espalier.core.errors import Conflict, GateFailed, PermissionDenied
from espalier.registry.aliases import find_alias, promote, rollback
from espalier.registry.approvals import approve, reject
from espalier.registry.versions import get_version, list_versions, register

PEOPLE = st.sampled_from(["ann", "bob", "Ann"])
NUMBERS = st.integers(1, 4)


class Lifecycle(RuleBasedStateMachine):
    """Model: the status of each version, who submitted it, whether it has a report; and a stack of promotions."""

    open_maker: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.make = self.open_maker(Path(self.folder.name))
        self.store = self.make.store
        self.status: dict[int, str] = {}
        self.submitter: dict[int, str] = {}
        self.has_report: dict[int, bool] = {}
        self.stack: list[int] = []

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    @initialize(actor=PEOPLE)
    def start(self, actor: str) -> None:
        self.submit(actor, True)

    @rule(actor=PEOPLE, has_report=st.booleans())
    def submit(self, actor: str, has_report: bool) -> None:
        number = len(self.status) + 1
        if number > 4:
            return
        adapter = self.make.adapter(weights=f"w{number}")
        changes = {} if has_report else {"reports": ()}
        version = register(self.store, self.make.registration(adapter=adapter, **changes), actor=actor)
        assert version.version == number
        self.status[number], self.submitter[number] = "PendingManualApproval", actor
        self.has_report[number] = has_report

    @rule(number=NUMBERS, actor=PEOPLE)
    def approve(self, number: int, actor: str) -> None:
        if number not in self.status:
            return
        refused: type[Exception] | None = None
        if self.status[number] != "PendingManualApproval":
            refused = Conflict
        elif actor.lower() == self.submitter[number].lower():
            refused = PermissionDenied
        elif not self.has_report[number]:
            refused = GateFailed
        if refused:
            with pytest.raises(refused):
                approve(self.store, PolicyConfig(), f"support@v{number}", actor=actor)
        else:
            approve(self.store, PolicyConfig(), f"support@v{number}", actor=actor)
            self.status[number] = "Approved"

    @rule(number=NUMBERS, actor=PEOPLE)
    def reject(self, number: int, actor: str) -> None:
        if number not in self.status:
            return
        if self.status[number] != "PendingManualApproval":
            with pytest.raises(Conflict):
                reject(self.store, f"support@v{number}", actor=actor, comment="no")
        else:
            reject(self.store, f"support@v{number}", actor=actor, comment="no")
            self.status[number] = "Rejected"

    @rule(number=NUMBERS)
    def promote(self, number: int) -> None:
        if number not in self.status:
            return
        if self.status[number] != "Approved":
            with pytest.raises(Conflict):
                promote(self.store, f"support@v{number}", "production", actor="bob")
        else:
            promote(self.store, f"support@v{number}", "production", actor="bob")
            if self.stack[-1:] != [number]:
                self.stack.append(number)

    @rule()
    def roll_back(self) -> None:
        if len(self.stack) > 1:
            rollback(self.store, "support", "production", actor="bob")
            self.stack.pop()
        elif self.stack:
            with pytest.raises(Conflict):
                rollback(self.store, "support", "production", actor="bob")

    @invariant()
    def the_store_says_what_the_model_says(self) -> None:
        if not self.status:
            return
        assert {each.version: each.status for each in list_versions(self.store, "support")} == self.status
        move = find_alias(self.store, "support", "production")
        assert (move.version if move else None) == (self.stack[-1] if self.stack else None)
        if move:
            assert get_version(self.store, "support@production").status == "Approved"
        self.store.audit.verify()


def test_whatever_people_do_the_rules_hold(make_in: Any) -> None:
    class Case(Lifecycle.TestCase):
        settings = settings(max_examples=8, stateful_step_count=15, deadline=None)

    Lifecycle.open_maker = staticmethod(make_in)
    Case("runTest").runTest()
