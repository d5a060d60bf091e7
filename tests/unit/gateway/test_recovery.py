"""kill -9 between reserve and settle: the next start settles what was left, once, and leaves live processes alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from espalier.core.types import LedgerEntry
from espalier.gateway.budget import Budgets
from espalier.gateway.holder import Holder
from espalier.gateway.keys import KeyRing
from espalier.gateway.price import Price
from espalier.store.store import Store

LONGEST_MS = 1000
PRICE = Price(Decimal(1), Decimal(1))
DETAIL = {"asked": "support", "model": "model:support@v1", "adapter": "a" * 64}

RESERVE_AND_HANG = """
import sys, time
from decimal import Decimal
from pathlib import Path
from espalier.gateway.budget import Budgets
from espalier.gateway.holder import Holder
from espalier.gateway.keys import KeyRing
from espalier.gateway.price import Price
from espalier.store.store import open_store
from espalier.store.workspace import find_workspace

store = open_store(find_workspace(Path(sys.argv[1])))
key = KeyRing(store).list()[0].key
budgets = Budgets(store.ledger, Holder(store.workspace.folder / "gateway"), longest_request_ms=1000)
detail = {"asked": "support", "model": "model:support@v1", "adapter": "a" * 64}
for number in range(3):
    budgets.reserve(f"req_{number}", key, Price(Decimal(1), Decimal(1)), 7, 10, detail)
print("reserved", flush=True)
time.sleep(60)
"""


@pytest.fixture
def account(store: Store) -> str:
    return KeyRing(store).create("test", budget_nusd=1_000_000).key.account


def start_process(store: Store) -> subprocess.Popen[str]:
    """A process that holds three reservations and does not settle them."""
    command = [sys.executable, "-c", RESERVE_AND_HANG, str(store.workspace.root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "reserved\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def test_what_a_killed_process_held_is_settled_once_at_the_next_start(store: Store, account: str) -> None:
    process = start_process(store)
    folder = store.workspace.folder / "gateway"
    here = Budgets(store.ledger, Holder(folder), longest_request_ms=LONGEST_MS)
    assert here.recover() == 0, "it still lives"
    end(process)
    assert here.recover() == 3
    assert here.recover() == 0
    balance = store.ledger.balance(account)
    assert (balance.spent_nusd, balance.reserved_nusd) == (3 * 17_000, 0)
    row = next(entry for entry in store.ledger.find("req_0") if entry.kind == "usage")
    assert (row.model, row.prompt_tokens, row.detail["finish"]) == ("model:support@v1", 7, "lost")
    assert len(list(folder.iterdir())) == 1, "the dead holder's file is gone, ours stays"


def test_a_settlement_that_arrived_just_before_the_kill_is_not_charged_again(store: Store, account: str) -> None:
    process = start_process(store)
    end(process)
    settled = Budgets(store.ledger, Holder(store.workspace.folder / "gateway"), longest_request_ms=LONGEST_MS)
    settled.settle(LedgerEntry(id="entry_1", request="req_0", kind="usage", amount_nusd=5, at_ms=1))
    assert settled.recover() == 2
    assert store.ledger.balance(account).spent_nusd == 5 + 2 * 17_000


def test_a_holder_of_another_machine_is_believed_dead_only_after_its_requests_must_have_ended(
    store: Store, account: str, tmp_path: Path
) -> None:
    elsewhere = Holder(tmp_path / "other machine")
    key = KeyRing(store).list()[0].key
    now = [0]
    there = Budgets(store.ledger, elsewhere, longest_request_ms=LONGEST_MS)
    there.reserve("req_far", key, PRICE, 7, 10, DETAIL)
    at_ms = store.ledger.reservations()[0].at_ms
    here = Budgets(
        store.ledger, Holder(tmp_path / "here"), longest_request_ms=LONGEST_MS, clock_ms=lambda: now[0]
    )  # fmt: skip
    now[0] = at_ms + 2 * LONGEST_MS
    assert here.recover() == 0
    now[0] += 1
    assert here.recover() == 1


def test_a_holder_that_closed_in_order_leaves_no_file(tmp_path: Path) -> None:
    holder = Holder(tmp_path)
    assert holder.look_at(holder.id) == "alive"
    holder.close(settled=True)
    assert list(tmp_path.iterdir()) == []


def test_what_could_not_be_settled_before_an_orderly_stop_is_settled_at_the_next_start(
    store: Store, account: str
) -> None:
    folder = store.workspace.folder / "gateway"
    key = KeyRing(store).list()[0].key
    one = Budgets(store.ledger, Holder(folder), longest_request_ms=LONGEST_MS)
    one.reserve("req_1", key, PRICE, 7, 10, DETAIL)
    one.close()
    assert Budgets(store.ledger, Holder(folder), longest_request_ms=LONGEST_MS).recover() == 1
