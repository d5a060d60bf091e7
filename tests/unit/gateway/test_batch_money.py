"""What a batch reserves, costs and may not spend, whatever befalls it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.gateway.batchhouse import CONFIG, TOKEN_NUSD, Forgetful, House, many, queue

from espalier.core.config import GatewayConfig, PriceConfig
from espalier.core.errors import BudgetExceeded, Conflict, Unavailable
from espalier.core.ports import ChatRequest, Delta
from espalier.core.refs import Ref
from espalier.core.types import SamplingSpec
from espalier.gateway.batch.records import Batch
from espalier.gateway.desk import Desk
from espalier.gateway.keys import ApiKey, KeyRing
from espalier.gateway.ticket import Ticket
from espalier.store.store import Store
from espalier.testing.resolver import FixedResolver
from espalier.wire.openai.request import decode_chat


def price_at(prompt: str, completion: str, batch: str = "1") -> GatewayConfig:
    return GatewayConfig(prices={"*": PriceConfig(prompt=prompt, completion=completion, batch=batch)})


def reserve_line(desk: Desk, batch: Batch, number: int, key: ApiKey, *, settle: bool = False) -> None:
    """What a process did that was killed after it reserved a line, or after it settled it, before the journal."""
    call = decode_chat(json.dumps(many(number + 1)[number]["body"]).encode())
    ticket = desk.admit(call, key, batch.request_id(number), lane="batch")
    if settle:
        asyncio.run(desk.complete(ticket))


# A line reads 5 tokens, answers 2 and reserves 5 + 20.
@pytest.mark.parametrize(
    ("new", "fresh_nusd"),
    [
        (price_at("3", "3"), 21 * TOKEN_NUSD),  # dearer
        (price_at("0.5", "0.5"), 7 * TOKEN_NUSD // 2),
        (price_at("5", "0"), 25 * TOKEN_NUSD),  # the worst case is the same, what is used costs otherwise
        (price_at("1", "1", batch="0.5"), 7 * TOKEN_NUSD // 2),
        (price_at("0", "0"), 0),
        (GatewayConfig(prices={"another": PriceConfig(prompt="1", completion="1")}), None),  # it has none any more
    ],
    ids=["dearer", "cheaper", "same worst", "batch share", "free", "none"],
)
def test_a_line_reserved_before_the_price_changed_is_answered_and_costs_what_it_was_reserved_at(
    store: Store, resolver: FixedResolver, tmp_path: Path, key: ApiKey, new: GatewayConfig, fresh_nusd: int | None
) -> None:
    batch = queue(store, tmp_path, many(4), key=key)
    before = House(store, resolver, price_at("1", "1"), Forgetful())
    reserve_line(before.desk, batch, 1, key)
    reserve_line(before.desk, batch, 2, key, settle=True)
    assert store.ledger.balance(key.account).reserved_nusd == 25 * TOKEN_NUSD
    after = House(store, resolver, new, Forgetful())
    end = after.work_off(batch)
    charged = {1: 7 * TOKEN_NUSD, 2: 7 * TOKEN_NUSD} | ({} if fresh_nusd is None else {0: fresh_nusd, 3: fresh_nusd})
    assert after.usage() == {batch.request_id(number): amount for number, amount in charged.items()}
    assert (end.completed, end.failed) == (len(charged), 4 - len(charged))
    balance = store.ledger.balance(key.account)
    assert (balance.spent_nusd, balance.reserved_nusd) == (sum(charged.values()), 0)
    before.desk.stop()
    after.desk.stop()


def test_a_line_whose_worst_case_has_changed_is_answered_under_the_reservation_it_has(
    store: Store, resolver: FixedResolver, config: GatewayConfig, tmp_path: Path, key: ApiKey
) -> None:
    batch = queue(store, tmp_path, many(2), key=key)
    before = House(store, resolver, config, Forgetful())
    reserve_line(before.desk, batch, 0, key)
    target = replace(resolver.find_version(Ref.parse("support@v1", kind="model")), defaults=SamplingSpec(max_tokens=30))
    longer = FixedResolver({"support@production": target, "support@v1": target}, {})
    after = House(store, longer, config, Forgetful())
    assert after.work_off(batch).completed == 2
    assert after.usage() == {batch.request_id(number): 7 * TOKEN_NUSD for number in range(2)}
    assert store.ledger.balance(key.account).reserved_nusd == 0
    before.desk.stop()
    after.desk.stop()


@pytest.mark.parametrize(("price", "charged_nusd"), [("0.5", 3500), ("3", 21_000), ("100", 25_000)])
def test_a_reservation_that_does_not_say_its_price_is_charged_no_more_than_it_holds(
    store: Store, resolver: FixedResolver, tmp_path: Path, key: ApiKey, price: str, charged_nusd: int
) -> None:
    batch = queue(store, tmp_path, many(1), key=key)
    store.ledger.reserve(batch.request_id(0), [key.account], 25 * TOKEN_NUSD, holder="holder_gone")
    house = House(store, resolver, price_at(price, price), Forgetful())
    assert house.work_off(batch).completed == 1
    assert house.usage() == {batch.request_id(0): charged_nusd}
    balance = store.ledger.balance(key.account)
    assert (balance.spent_nusd, balance.reserved_nusd) == (charged_nusd, 0)
    house.desk.stop()


def test_a_small_budget_is_waited_for_and_a_spent_one_refuses_the_rest(
    house: House, store: Store, tmp_path: Path
) -> None:
    # A line reserves 5 + 20 tokens and costs 7: two at once do not fit, one after the other four do.
    key = KeyRing(store).create("small", budget_nusd=46 * TOKEN_NUSD).key
    batch = queue(store, tmp_path, many(8), key=key)
    end = house.work_off(batch)
    assert (end.completed, end.failed) == (4, 4)
    failures = house.read(end.errors)
    assert {failure["response"]["body"]["error"]["code"] for failure in failures} == {"insufficient_quota"}
    balance = store.ledger.balance(key.account)
    assert (balance.spent_nusd, balance.reserved_nusd) == (4 * 7 * TOKEN_NUSD, 0)


def test_a_line_is_not_refused_for_a_reservation_of_another_that_is_only_just_made(
    house: House, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = KeyRing(store).create("small", budget_nusd=46 * TOKEN_NUSD).key  # enough for four, one after the other
    batch = queue(store, tmp_path, many(4), key=key)
    admit, refused = house.desk.admit, threading.Event()

    def admit_slowly(*arguments: Any, **how: Any) -> Ticket:
        try:
            ticket = admit(*arguments, **how)
        except BudgetExceeded:
            refused.set()
            raise
        assert refused.wait(60)  # it holds the budget, and only this thread knows
        return ticket

    monkeypatch.setattr(house.desk, "admit", admit_slowly)
    end = house.work_off(batch)
    assert (end.completed, end.failed) == (4, 0)


def test_a_line_is_not_refused_for_a_reservation_of_another_that_waits_to_be_asked_again(
    store: Store, resolver: FixedResolver, config: GatewayConfig, tmp_path: Path
) -> None:
    class Busy(Forgetful):
        """Has no place for the first who asks until another was refused its budget."""

        async def stream(self, request: ChatRequest) -> AsyncIterator[Delta]:
            if not refused:
                raise Unavailable("busy", retry_after_s=0.01)
            async for delta in super().stream(request):
                yield delta

    key = KeyRing(store).create("small", budget_nusd=46 * TOKEN_NUSD).key
    batch = queue(store, tmp_path, many(4), key=key)
    house = House(store, resolver, config, Busy())
    admit, refused = house.desk.admit, []

    def note_refusals(*arguments: Any, **how: Any) -> Ticket:
        try:
            return admit(*arguments, **how)
        except BudgetExceeded:
            refused.append(1)
            raise

    house.desk.admit = note_refusals  # type: ignore[method-assign]
    end = house.work_off(batch)
    assert (end.completed, end.failed) == (4, 0)
    house.desk.stop()


def test_a_key_s_rate_is_its_interactive_one(
    store: Store, resolver: FixedResolver, tmp_path: Path, key: ApiKey
) -> None:
    house = House(store, resolver, GatewayConfig(requests_per_minute=1), Forgetful())
    assert house.work_off(queue(store, tmp_path, many(10), key=key)).completed == 10
    house.desk.stop()


def test_a_batch_may_cost_less(store: Store, resolver: FixedResolver, tmp_path: Path, key: ApiKey) -> None:
    prices = {"*": PriceConfig(prompt="1", completion="1", batch="0.5")}
    house = House(store, resolver, GatewayConfig(prices=prices), Forgetful())
    house.work_off(queue(store, tmp_path, many(2), key=key))
    assert store.ledger.balance(key.account).spent_nusd == 2 * 7 * TOKEN_NUSD // 2
    house.desk.stop()


def test_a_batch_that_fails_as_a_whole_holds_no_money(house: House, store: Store, tmp_path: Path, key: ApiKey) -> None:
    batch = queue(store, tmp_path, many(6), key=key)
    detail = {"asked": "support", "model": "model:support@v1"}
    store.ledger.reserve(batch.request_id(1), [key.account], 25 * TOKEN_NUSD, holder="holder_gone", detail=detail)
    few = CONFIG.model_copy(update={"max_lines": 5})  # the setting was another when the line was begun
    assert house.work_off(batch, few).status == "failed"
    assert store.ledger.balance(key.account).reserved_nusd == 0


def test_an_answer_that_could_not_be_booked_is_not_given_out_unbooked(
    house: House, store: Store, tmp_path: Path, key: ApiKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle, failed = house.desk._budgets.settle, []

    def fails_at_first(entry: Any) -> bool:
        if entry.request not in failed:
            failed.append(entry.request)
            raise Conflict("the database stayed locked")
        return settle(entry)

    monkeypatch.setattr(house.desk._budgets, "settle", fails_at_first)
    batch = queue(store, tmp_path, many(5), key=key)
    assert house.work_off(batch).completed == 5
    assert len(failed) == 5
    assert house.usage() == {batch.request_id(number): 7 * TOKEN_NUSD for number in range(5)}
