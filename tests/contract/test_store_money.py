"""The ledger and its budgets, and the audit chain, on every database."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Literal

import pytest
from sqlalchemy import text

from espalier.core.errors import BudgetExceeded, Conflict, DigestMismatch, InvalidInput, NotFound
from espalier.core.types import LedgerEntry
from espalier.store.audit import GENESIS
from espalier.store.store import Store

AtOnce = Callable[[int, Callable[[int], Any]], list[Any]]


def usage(request: str, amount_nusd: int, kind: Literal["usage", "settle"] = "usage", **more: Any) -> LedgerEntry:
    return LedgerEntry(id=f"entry_{request}", request=request, kind=kind, amount_nusd=amount_nusd, at_ms=1, **more)


def test_a_reservation_holds_the_worst_case_and_settling_charges_the_real_one(store: Store) -> None:
    store.ledger.set_limit("team", 100)
    assert store.ledger.reserve("r1", ["team"], 60, holder="gateway-1")
    held = store.ledger.balance("team")
    assert (held.reserved_nusd, held.spent_nusd, held.left_nusd) == (60, 0, 40)
    assert store.ledger.settle(usage("r1", 25))
    charged = store.ledger.balance("team")
    assert (charged.reserved_nusd, charged.spent_nusd, charged.left_nusd) == (0, 25, 75)
    assert [entry.kind for entry in store.ledger.find("r1")] == ["reserve", "usage"]


def test_a_request_that_could_cost_more_than_is_left_is_refused_and_leaves_no_trace(store: Store) -> None:
    store.ledger.set_limit("team", 100)
    store.ledger.reserve("r1", ["team"], 60)
    with pytest.raises(BudgetExceeded, match="team"):
        store.ledger.reserve("r2", ["team"], 41)
    assert store.ledger.find("r2") == []
    assert store.ledger.reserve("r3", ["team"], 40)


def test_all_budgets_hold_or_none_does(store: Store) -> None:
    store.ledger.set_limit("key", 100)
    store.ledger.set_limit("team", 10)
    with pytest.raises(BudgetExceeded, match="team"):
        store.ledger.reserve("r1", ["key", "team"], 50)
    assert store.ledger.balance("key").reserved_nusd == 0
    assert store.ledger.reservations() == []


def test_replaying_any_part_of_a_request_changes_nothing(store: Store) -> None:
    store.ledger.set_limit("team", 100)
    for _ in range(3):
        store.ledger.reserve("r1", ["team"], 60)
    assert store.ledger.balance("team").reserved_nusd == 60
    assert [store.ledger.settle(usage("r1", 20)) for _ in range(3)] == [True, False, False]
    assert not store.ledger.reserve("r1", ["team"], 60)
    assert not store.ledger.release("r1")
    balance = store.ledger.balance("team")
    assert (balance.reserved_nusd, balance.spent_nusd) == (0, 20)


def test_the_same_request_with_another_amount_is_a_conflict(store: Store) -> None:
    store.ledger.set_limit("team", 100)
    store.ledger.settle(usage("r1", 20))
    with pytest.raises(Conflict):
        store.ledger.settle(usage("r1", 21))
    with pytest.raises(Conflict):
        store.ledger.append(usage("r1", 21))


def test_released_money_is_free_again_and_late_usage_is_charged_all_the_same(store: Store) -> None:
    store.ledger.set_limit("team", 100)
    store.ledger.reserve("r1", ["team"], 60)
    assert store.ledger.release("r1")
    assert store.ledger.balance("team").left_nusd == 100
    assert store.ledger.settle(usage("r1", 30))
    assert store.ledger.balance("team").spent_nusd == 30


def test_a_chunk_reserved_ahead_pays_for_many_requests_and_gives_its_rest_back(store: Store) -> None:
    store.ledger.set_limit("team", 100)
    store.ledger.reserve("chunk-1", ["team"], 80, holder="worker-1")
    with store.transaction():
        for number in range(5):
            store.ledger.draw(usage(f"r{number}", 10), ["chunk-1"])
    assert not store.ledger.draw(usage("r0", 10), ["chunk-1"])
    balance = store.ledger.balance("team")
    assert (balance.reserved_nusd, balance.spent_nusd, balance.left_nusd) == (30, 50, 20)
    assert [held.amount_nusd for held in store.ledger.reservations("worker-1")] == [30]
    store.ledger.release("chunk-1")
    assert store.ledger.balance("team").left_nusd == 50


def test_a_lowered_limit_refuses_new_requests_and_keeps_what_was_spent(store: Store) -> None:
    store.ledger.set_limit("team", 100)
    store.ledger.settle(usage("x", 0))
    store.ledger.reserve("r1", ["team"], 50)
    lowered = store.ledger.set_limit("team", 40)
    assert (lowered.left_nusd, lowered.reserved_nusd) == (-10, 50)
    with pytest.raises(BudgetExceeded):
        store.ledger.reserve("r2", ["team"], 1)


def test_amounts_that_make_no_sense_are_refused(store: Store) -> None:
    store.ledger.set_limit("team", 100)
    with pytest.raises(InvalidInput):
        store.ledger.reserve("r1", ["team"], -1)
    with pytest.raises(InvalidInput):
        store.ledger.set_limit("team", -1)
    with pytest.raises(NotFound):
        store.ledger.reserve("r1", ["no-such-budget"], 1)


def test_concurrent_requests_never_overdraw_a_budget_and_waste_none_of_it(store: Store, at_once: AtOnce) -> None:
    store.ledger.set_limit("team", 1000)
    results = at_once(32, lambda index: store.ledger.reserve(f"r{index}", ["team"], 70))
    assert sum(result is True for result in results) == 14  # 14 * 70 = 980; a fifteenth does not fit
    assert sum(isinstance(result, BudgetExceeded) for result in results) == 18
    assert store.ledger.balance("team").reserved_nusd == 980


def test_books_balance_after_concurrent_random_work_on_shared_budgets(store: Store, at_once: AtOnce) -> None:
    accounts = ["key-a", "key-b", "team"]
    for account in accounts:
        store.ledger.set_limit(account, 2000)

    def work(worker: int) -> None:
        dice = random.Random(worker)
        for number in range(8):
            request = f"r{worker}-{number}"
            worst_nusd = dice.randrange(1, 300)
            try:
                store.ledger.reserve(request, [accounts[worker % 2], "team"], worst_nusd)
            except BudgetExceeded:
                continue
            match dice.randrange(4):
                case 0:
                    store.ledger.release(request)
                case 1 | 2:
                    store.ledger.settle(usage(request, dice.randrange(worst_nusd + 1)))

    assert at_once(12, work) == [None] * 12
    for account in accounts:
        balance = store.ledger.balance(account)
        held = sum(row.amount_nusd for row in store.ledger.reservations() if row.account == account)
        assert balance.reserved_nusd == held
        assert balance.left_nusd >= 0
    spent = sum(entry.amount_nusd for entry in store.ledger.list(kind="usage", limit=1000))
    assert store.ledger.balance("team").spent_nusd == spent
    assert store.ledger.balance("key-a").spent_nusd + store.ledger.balance("key-b").spent_nusd == spent


def test_usage_is_summed_by_model_and_by_key(store: Store) -> None:
    store.ledger.append(usage("r1", 10, key="k1", model="model:a@v1", prompt_tokens=5, completion_tokens=2))
    store.ledger.append(usage("r2", 30, key="k2", model="model:b@v1", prompt_tokens=7, completion_tokens=1))
    store.ledger.append(usage("r3", 15, key="k1", model="model:b@v1"))
    by_model = store.ledger.totals("model")
    assert [(total.name, total.requests, total.amount_nusd) for total in by_model] == [
        ("model:b@v1", 2, 45),
        ("model:a@v1", 1, 10),
    ]
    assert [(total.name, total.amount_nusd, total.prompt_tokens) for total in store.ledger.totals("key")] == [
        ("k2", 30, 7),
        ("k1", 25, 5),
    ]


def test_an_empty_audit_log_is_sound(store: Store) -> None:
    store.audit.verify()
    assert store.audit.head() == (0, GENESIS)


def test_every_link_holds_the_hash_of_the_one_before(store: Store) -> None:
    events = [
        store.audit.append("ann", "models.approve", f"model:a@v{n}", {"score": n / 3, "ö": None}) for n in (1, 2, 3)
    ]
    assert [event.seq for event in events] == [1, 2, 3]
    assert events[0].previous == GENESIS
    assert [event.previous for event in events[1:]] == [event.hash for event in events[:2]]
    assert list(reversed(store.audit.list())) == events
    store.audit.verify()


def test_concurrent_appends_make_one_unbroken_chain(store: Store, at_once: AtOnce) -> None:
    at_once(12, lambda index: store.audit.append("ann", "x.y", str(index)))
    store.audit.verify()
    assert sorted(int(event.subject) for event in store.audit.list()) == list(range(12))


def tamper(store: Store, statement: str) -> None:
    """What someone with the database in hand can do: take the triggers away, change, put them back."""
    with store.database.write() as connection:
        if store.database.is_postgres:
            connection.execute(text("ALTER TABLE audit DISABLE TRIGGER USER"))
        else:
            connection.execute(text("DROP TRIGGER audit_no_update"))
            connection.execute(text("DROP TRIGGER audit_no_delete"))
        connection.exec_driver_sql(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'eve' WHERE seq = 3",
        "UPDATE audit SET at_ms = at_ms + 1 WHERE seq = 3",
        "UPDATE audit SET detail = '{\"ok\":false}' WHERE seq = 3",
        "UPDATE audit SET hash = previous WHERE seq = 3",
        "DELETE FROM audit WHERE seq = 3",
    ],
)
def test_a_change_behind_our_back_is_found_at_its_place(store: Store, statement: str) -> None:
    for number in range(5):
        store.audit.append("ann", "x.y", str(number), {"ok": True})
    tamper(store, statement)
    with pytest.raises(DigestMismatch, match="entry 3"):
        store.audit.verify()


def test_a_cut_end_is_found_by_a_head_that_was_kept(store: Store) -> None:
    for number in range(5):
        store.audit.append("ann", "x.y", str(number))
    kept = store.audit.head()
    tamper(store, "DELETE FROM audit WHERE seq >= 4")
    store.audit.verify()
    with pytest.raises(DigestMismatch, match="entry 4"):
        store.audit.verify(kept)


def test_the_audit_log_is_listed_by_subject_and_page(store: Store) -> None:
    for number in range(6):
        store.audit.append("ann" if number % 2 else "bob", "x.y", "even" if number % 2 == 0 else "odd")
    assert [event.seq for event in store.audit.list(subject="even")] == [5, 3, 1]
    assert [event.seq for event in store.audit.list(actor="ann", limit=2)] == [6, 4]
    assert [event.seq for event in store.audit.list(before=3)] == [2, 1]
