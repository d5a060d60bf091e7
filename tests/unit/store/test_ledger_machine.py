"""The ledger against a model of it: whatever is replayed in whatever order, the books balance to the nano-dollar."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from espalier.core.errors import BudgetExceeded
from espalier.core.types import LedgerEntry
from espalier.store.database import Database, sqlite_url
from espalier.store.ledger import Ledger
from espalier.store.schema import migrate

REQUESTS = st.sampled_from([f"r{number}" for number in range(6)])
AMOUNTS = st.integers(0, 60)
ACCOUNTS = ("key", "team")


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.database = Database(sqlite_url(self.folder / "ledger.db"))
        migrate(self.database)
        self.ledger = Ledger(self.database)
        self.reserved: dict[str, int] = {}  # request -> amount, ever
        self.held: dict[str, int] = {}  # request -> amount, now
        self.settled: dict[str, int] = {}

    def teardown(self) -> None:
        self.database.close()
        shutil.rmtree(self.folder)

    @initialize()
    def open_budgets(self) -> None:
        for account in ACCOUNTS:
            self.ledger.set_limit(account, 100)

    @rule(request=REQUESTS, amount=AMOUNTS)
    def reserve(self, request: str, amount: int) -> None:
        amount = self.reserved.get(request, amount)  # a replay says the same again
        left = 100 - sum(self.held.values()) - sum(self.settled[name] for name in self.settled if name in self.reserved)
        if request in self.reserved:
            assert not self.ledger.reserve(request, ACCOUNTS, amount)
        elif amount > left:
            try:
                self.ledger.reserve(request, ACCOUNTS, amount)
            except BudgetExceeded:
                return
            raise AssertionError("a budget was overdrawn")
        elif request not in self.settled:
            assert self.ledger.reserve(request, ACCOUNTS, amount)
            self.reserved[request] = self.held[request] = amount

    @rule(request=REQUESTS, amount=AMOUNTS)
    def settle(self, request: str, amount: int) -> None:
        amount = self.settled.get(request, min(amount, self.reserved.get(request, 0)))
        entry = LedgerEntry(id="e", request=request, kind="usage", amount_nusd=amount, at_ms=1)
        assert self.ledger.settle(entry) == (request not in self.settled)
        self.settled.setdefault(request, amount)
        self.held.pop(request, None)

    @rule(request=REQUESTS)
    def release(self, request: str) -> None:
        assert self.ledger.release(request) == (request in self.held)
        self.held.pop(request, None)

    @invariant()
    def the_books_balance(self) -> None:
        spent = sum(amount for request, amount in self.settled.items() if request in self.reserved)
        for account in ACCOUNTS:
            balance = self.ledger.balance(account)
            assert (balance.spent_nusd, balance.reserved_nusd) == (spent, sum(self.held.values()))
        open_now = {row.request: row.amount_nusd for row in self.ledger.reservations() if row.account == "key"}
        assert open_now == self.held


LedgerMachine.TestCase.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLedger = LedgerMachine.TestCase
