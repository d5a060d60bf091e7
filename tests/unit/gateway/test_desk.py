from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import Future
from contextlib import aclosing
from typing import Any, cast

import pytest

from espalier.core.config import GatewayConfig, PriceConfig
from espalier.core.errors import (
    BudgetExceeded,
    EspalierError,
    InvalidInput,
    NotFound,
    PermissionDenied,
    RateLimited,
    Unavailable,
)
from espalier.core.ports import ChatRequest, Delta
from espalier.core.types import LedgerEntry, Message, Usage
from espalier.core.types.inference import FinishReason
from espalier.gateway.assembly import open_desk
from espalier.gateway.desk import Desk
from espalier.gateway.keys import ApiKey, KeyRing
from espalier.gateway.route import Target
from espalier.gateway.ticket import Ticket
from espalier.store.store import Store
from espalier.testing.provider import TEMPLATE_TOKENS, StrictProvider
from espalier.testing.resolver import FixedResolver
from espalier.wire.openai.request import ChatCall

QUESTION = "one two three four"
PROMPT_TOKENS = TEMPLATE_TOKENS + 4
ANSWER_TOKENS = 4  # the strict provider answers in as many words
TOKEN_NUSD = 1000


@pytest.fixture
def desk(store: Store, provider: StrictProvider, resolver: FixedResolver, config: GatewayConfig) -> Desk:
    return open_desk(store, provider, resolver, config)


def call(text: str = QUESTION, **fields: object) -> ChatCall:
    return ChatCall.model_validate({"model": "support", "messages": (Message("user", text),), **fields})


def new_key(store: Store, budget_tokens: int | None = None, **fields: object) -> ApiKey:
    budget = None if budget_tokens is None else budget_tokens * TOKEN_NUSD
    return KeyRing(store).create("test", budget_nusd=budget, **fields).key  # type: ignore[arg-type]


def usage_row(store: Store, ticket: Ticket) -> LedgerEntry:
    rows = [entry for entry in store.ledger.find(ticket.id) if entry.kind == "usage"]
    assert len(rows) == 1
    return rows[0]


def stream(desk: Desk, ticket: Ticket) -> AsyncGenerator[Delta, None]:
    return cast("AsyncGenerator[Delta, None]", desk.answer(ticket))


def test_an_answer_is_charged_what_it_used_and_the_rest_is_free_again(desk: Desk, store: Store) -> None:
    key = new_key(store, budget_tokens=100)
    ticket = desk.admit(call(max_tokens=10), key)
    held = store.ledger.balance(key.account)
    assert held.reserved_nusd == ticket.reserved_nusd == (PROMPT_TOKENS + 10) * TOKEN_NUSD
    completion = asyncio.run(desk.complete(ticket))
    balance = store.ledger.balance(key.account)
    assert completion.generation.text == "four three two one"
    assert completion.cost_nusd == balance.spent_nusd == (PROMPT_TOKENS + ANSWER_TOKENS) * TOKEN_NUSD
    assert balance.reserved_nusd == 0


def test_the_usage_row_names_who_what_and_how_much_but_no_word_of_the_text(desk: Desk, store: Store) -> None:
    key = new_key(store)
    ticket = desk.admit(call("my secret is swordfish", metadata={"team": "blue"}), key)
    asyncio.run(desk.complete(ticket))
    row = usage_row(store, ticket)
    assert (row.key, row.model, row.adapter) == (key.id, "model:support@v1", "a" * 64)
    assert (row.prompt_tokens, row.completion_tokens) == (PROMPT_TOKENS, 4)
    assert row.detail["tags"] == {"team": "blue"}
    assert len(row.detail["prompt_digest"]) == 64
    assert "swordfish" not in row.model_dump_json()


def test_equal_messages_have_equal_digests_and_others_other_ones(desk: Desk, store: Store) -> None:
    tickets = [desk.admit(call(text), None) for text in ("one", "one", "two")]
    for ticket in tickets:
        asyncio.run(desk.complete(ticket))
    first, second, third = (usage_row(store, ticket).detail["prompt_digest"] for ticket in tickets)
    assert first == second != third


def test_a_missing_max_tokens_is_the_deployment_s_and_never_more_than_the_context_holds(desk: Desk) -> None:
    assert desk.admit(call(), None).request.sampling.max_tokens == 20
    long = "word " * 50  # 53 tokens of a context of 64
    assert desk.admit(call(long), None).request.sampling.max_tokens == 11
    assert desk.admit(call(long, max_tokens=500), None).request.sampling.max_tokens == 11


def test_a_prompt_that_leaves_no_room_for_an_answer_is_refused(desk: Desk) -> None:
    with pytest.raises(InvalidInput, match="the prompt has 67 tokens") as refusal:
        desk.admit(call("word " * 64), None)
    assert refusal.value.where == "messages"


def test_a_prompt_that_is_only_bounded_is_left_to_the_server_that_can_count_it(
    store: Store, config: GatewayConfig
) -> None:
    far = Target("path:far", "path:far", "", 64, is_bounded=True)
    desk = open_desk(store, StrictProvider(bases=("path:far",)), FixedResolver({}, {"path:far": far}), config)
    ticket = desk.admit(call("word " * 64, model="path:far", max_tokens=20), None)
    assert ticket.request.sampling.max_tokens == 20, "an answer is not cut short by more than the prompt may have"
    assert ticket.prompt_tokens == 67, "the budget is held for all it may cost"


def test_what_the_client_says_wins_over_the_deployment_s_defaults(desk: Desk) -> None:
    sampling = desk.admit(call(temperature=0.5, seed=7, stop=("x",)), None).request.sampling
    assert (sampling.temperature, sampling.seed, sampling.stop, sampling.top_p) == (0.5, 7, ("x",), 1.0)


def test_a_request_that_could_overdraw_is_refused_and_holds_nothing(desk: Desk, store: Store) -> None:
    key = new_key(store, budget_tokens=PROMPT_TOKENS + 9)
    with pytest.raises(BudgetExceeded):
        desk.admit(call(max_tokens=10), key)
    assert store.ledger.balance(key.account).reserved_nusd == 0
    desk.admit(call(max_tokens=9), key)


def test_a_budget_refuses_a_model_without_a_price_and_no_budget_lets_it_pass(
    store: Store, provider: StrictProvider, resolver: FixedResolver
) -> None:
    desk = open_desk(store, provider, resolver, GatewayConfig(prices={"model:sales@*": PriceConfig()}))
    with pytest.raises(PermissionDenied, match="has no price"):
        desk.admit(call(), new_key(store, budget_tokens=100))
    ticket = desk.admit(call(), new_key(store))
    asyncio.run(desk.complete(ticket))
    assert usage_row(store, ticket).detail["priced"] is False


def test_a_key_may_ask_only_its_models_whichever_name_it_uses(desk: Desk, store: Store) -> None:
    key = new_key(store, models=("support",))
    desk.admit(call(model="support@v2"), key)
    with pytest.raises(PermissionDenied):
        desk.admit(call(model="builtin:seedling"), key)


def test_an_unknown_model_is_not_found(desk: Desk) -> None:
    with pytest.raises(NotFound):
        desk.admit(call(model="gpt-4o"), None)


def test_a_key_s_own_rate_holds(desk: Desk, store: Store) -> None:
    key = new_key(store, requests_per_minute=2)
    desk.admit(call(), key)
    desk.admit(call(), key)
    with pytest.raises(RateLimited):
        desk.admit(call(), key)


def test_leaving_in_the_middle_is_charged_for_what_was_said_and_the_provider_stops(
    desk: Desk, store: Store, provider: StrictProvider
) -> None:
    key = new_key(store, budget_tokens=100)
    ticket = desk.admit(call(), key)
    open_when_settled: list[set[str]] = []
    desk.on_settled = lambda ticket: open_when_settled.append(set(provider.open))

    async def leave_after_two() -> None:
        async with aclosing(stream(desk, ticket)) as deltas:
            await anext(deltas)
            await anext(deltas)

    asyncio.run(leave_after_two())
    row = usage_row(store, ticket)
    assert provider.cancelled == {ticket.id}
    assert open_when_settled == [set()], "the bill is written when no more can be used"
    assert (row.completion_tokens, row.detail["finish"]) == (2, "cancelled")
    assert store.ledger.balance(key.account).spent_nusd == (PROMPT_TOKENS + 2) * TOKEN_NUSD
    assert store.ledger.reservations() == []


def test_a_cancelled_task_settles_too(desk: Desk, store: Store, provider: StrictProvider) -> None:
    ticket = desk.admit(call(), new_key(store, budget_tokens=100))

    async def cancel_in_the_middle() -> None:
        provider.gate = asyncio.Event()
        task = asyncio.create_task(desk.complete(ticket))
        while not ticket.pieces:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel_in_the_middle())
    assert usage_row(store, ticket).detail["finish"] == "cancelled"
    assert store.ledger.reservations() == []


@pytest.mark.parametrize(("words", "tokens"), [(0, 0), (2, PROMPT_TOKENS + 2)])
def test_a_breakdown_costs_what_was_delivered_before_it(
    words: int, tokens: int, desk: Desk, store: Store, provider: StrictProvider
) -> None:
    provider.fail_after = words
    key = new_key(store, budget_tokens=100)
    ticket = desk.admit(call(), key)
    with pytest.raises(RuntimeError):
        asyncio.run(desk.complete(ticket))
    assert usage_row(store, ticket).detail["finish"] == "error"
    balance = store.ledger.balance(key.account)
    assert (balance.spent_nusd, balance.reserved_nusd) == (tokens * TOKEN_NUSD, 0)


def test_settling_twice_charges_once(desk: Desk, store: Store) -> None:
    key = new_key(store, budget_tokens=100)
    ticket = desk.admit(call(), key)

    async def complete_and_close_again() -> None:
        await desk.complete(ticket)
        spent = store.ledger.balance(key.account).spent_nusd
        ticket.settled = False
        await desk.close(ticket)
        assert store.ledger.balance(key.account).spent_nusd == spent

    asyncio.run(complete_and_close_again())
    usage_row(store, ticket)


def test_a_hundred_at_once_never_overdraw_a_budget_and_all_of_it_can_be_used(
    desk: Desk, store: Store, provider: StrictProvider
) -> None:
    worst, real = PROMPT_TOKENS + 10, PROMPT_TOKENS + ANSWER_TOKENS
    key = new_key(store, budget_tokens=10 * worst)

    async def ask(number: int) -> int:
        try:
            ticket = await desk.admit_soon(call(max_tokens=10), key)
        except BudgetExceeded:
            return 0
        balance = await desk.off_loop(store.ledger.balance, key.account)
        assert balance.spent_nusd + balance.reserved_nusd <= balance.limit_nusd
        await desk.complete(ticket)
        return 1

    async def flood() -> list[int]:
        return await asyncio.gather(*(ask(number) for number in range(100)))

    admitted = sum(asyncio.run(flood()))
    balance = store.ledger.balance(key.account)
    assert balance.spent_nusd == admitted * real * TOKEN_NUSD
    assert balance.reserved_nusd == 0
    assert 10 <= admitted <= (10 * worst) // real
    assert len(provider.finished) == admitted


def test_a_caller_cancelled_while_being_admitted_leaves_nothing_reserved(desk: Desk, store: Store) -> None:
    key = new_key(store, budget_tokens=100)

    async def cancel_at_once() -> None:
        task = asyncio.create_task(desk.admit_soon(call(), key))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while not any(entry.kind == "usage" for entry in store.ledger.list(key=key.id)):
            await asyncio.sleep(0.005)

    asyncio.run(cancel_at_once())
    balance = store.ledger.balance(key.account)
    assert (balance.spent_nusd, balance.reserved_nusd) == (0, 0)


def test_a_caller_cancelled_while_being_admitted_leaves_nothing_reserved_though_the_loop_ends_first(
    store: Store, resolver: FixedResolver, config: GatewayConfig
) -> None:
    counting, go_on = threading.Event(), threading.Event()

    class Slow(StrictProvider):
        def count_prompt_tokens(self, request: ChatRequest) -> int:
            counting.set()
            assert go_on.wait(60)
            return super().count_prompt_tokens(request)

    desk, key = open_desk(store, Slow(), resolver, config), new_key(store, budget_tokens=100)

    async def cancel_while_it_counts() -> None:
        task = asyncio.create_task(desk.admit_soon(call(), key))
        assert await asyncio.to_thread(counting.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel_while_it_counts())
    go_on.set()
    desk.stop()
    balance = store.ledger.balance(key.account)
    assert (balance.spent_nusd, balance.reserved_nusd) == (0, 0)
    assert [entry.kind for entry in store.ledger.list(key=key.id)] == ["usage"]


def test_a_caller_cancelled_just_after_it_was_admitted_is_settled_without_holding_up_the_loop(
    desk: Desk, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The admission has ended and the loop has not heard of it: the callback comes at once, in the loop's thread."""
    key, settling, admissions = new_key(store, budget_tokens=100), list[threading.Thread](), list[Future[Any]]()
    submit, settle = desk._admitting.submit, desk._budgets.settle

    def note_admission(*work: Any) -> Future[Any]:
        admissions.append(submit(*work))
        return admissions[-1]

    def note_thread(entry: LedgerEntry) -> bool:
        settling.append(threading.current_thread())
        return settle(entry)

    monkeypatch.setattr(desk._admitting, "submit", note_admission)
    monkeypatch.setattr(desk._budgets, "settle", note_thread)

    async def leave_at_once() -> None:
        task = asyncio.create_task(desk.admit_soon(call(), key))
        await asyncio.sleep(0)
        assert admissions[0].result(60)  # the loop stands still meanwhile
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave_at_once())
    desk.stop()
    assert settling and threading.main_thread() not in settling
    assert store.ledger.balance(key.account).reserved_nusd == 0


def test_the_provider_s_count_is_charged_not_how_many_pieces_it_came_in(
    desk: Desk, store: Store, provider: StrictProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def speak_in_one_piece(request: object) -> AsyncGenerator[Delta, None]:
        yield Delta("four three two one", usage=Usage(prompt_tokens=PROMPT_TOKENS, completion_tokens=4))
        yield Delta("", "stop", Usage(prompt_tokens=PROMPT_TOKENS - 1, completion_tokens=5))

    monkeypatch.setattr(provider, "stream", speak_in_one_piece)
    ticket = desk.admit(call(), new_key(store))
    asyncio.run(desk.complete(ticket))
    row = usage_row(store, ticket)
    assert (row.prompt_tokens, row.completion_tokens) == (PROMPT_TOKENS - 1, 5)


def test_a_provider_that_counts_only_at_the_end_is_charged_by_the_piece_when_it_is_cut_off(
    desk: Desk, store: Store, provider: StrictProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def count_at_the_end(request: object) -> AsyncGenerator[Delta, None]:
        for word in ("four ", "three ", "two ", "one"):
            yield Delta(word)
        yield Delta("", "stop", Usage(prompt_tokens=PROMPT_TOKENS, completion_tokens=4))

    monkeypatch.setattr(provider, "stream", count_at_the_end)
    ticket = desk.admit(call(), new_key(store))

    async def leave_after_three() -> None:
        async with aclosing(stream(desk, ticket)) as deltas:
            for _ in range(3):
                await anext(deltas)

    asyncio.run(leave_after_three())
    row = usage_row(store, ticket)
    assert (row.prompt_tokens, row.completion_tokens) == (PROMPT_TOKENS, 3)


def test_an_engine_that_stops_in_the_middle_is_an_error_and_not_a_short_answer(
    desk: Desk, store: Store, provider: StrictProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stop_early(request: object) -> AsyncGenerator[Delta, None]:
        yield Delta("four", usage=Usage(prompt_tokens=PROMPT_TOKENS, completion_tokens=1))
        yield Delta("", "cancelled", Usage(prompt_tokens=PROMPT_TOKENS, completion_tokens=1))

    monkeypatch.setattr(provider, "stream", stop_early)
    ticket = desk.admit(call(), new_key(store))
    with pytest.raises(Unavailable, match="stopped in the middle"):
        asyncio.run(desk.complete(ticket))
    row = usage_row(store, ticket)
    assert (row.completion_tokens, row.detail["finish"]) == (1, "error")


def test_a_loan_s_requests_count_against_its_lender(desk: Desk, store: Store) -> None:
    lender = new_key(store, budget_tokens=PROMPT_TOKENS + 10, requests_per_minute=2)
    keys = KeyRing(store)
    loans = [keys.lend("ada", 60_000, lender=lender.id).key for _ in range(3)]
    ticket = desk.admit(call(max_tokens=10), loans[0])
    with pytest.raises(BudgetExceeded):
        desk.admit(call(max_tokens=10), loans[1])
    with pytest.raises(RateLimited):
        desk.admit(call(max_tokens=10), loans[2])
    asyncio.run(desk.complete(ticket))
    assert usage_row(store, ticket).key == lender.id


def test_several_answers_reserve_several_times_the_longest_and_pay_what_they_used(
    desk: Desk, store: Store, provider: StrictProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = Usage(prompt_tokens=PROMPT_TOKENS, completion_tokens=5)

    async def answer_twice(request: object) -> AsyncGenerator[Delta, None]:
        yield Delta("one", index=1)
        yield Delta("two", "stop", index=0, adapter="a" * 64)
        yield Delta(" more", "length", used, index=1, adapter="a" * 64)

    monkeypatch.setattr(provider, "stream", answer_twice)
    key = new_key(store, budget_tokens=1000)
    ticket = desk.admit(call(n=2, max_tokens=10), key)
    assert ticket.reserved_nusd == (PROMPT_TOKENS + 2 * 10) * TOKEN_NUSD
    completion = asyncio.run(desk.complete(ticket))
    assert (completion.generation.text, [other.text for other in completion.others]) == ("two", ["one more"])
    assert completion.generation.usage == used
    assert store.ledger.balance(key.account).spent_nusd == (PROMPT_TOKENS + 5) * TOKEN_NUSD


@pytest.mark.parametrize("finish", ["cancelled", None])
def test_one_of_several_answers_that_did_not_end_is_an_error(
    desk: Desk, store: Store, provider: StrictProvider, monkeypatch: pytest.MonkeyPatch, finish: FinishReason | None
) -> None:
    async def answer_half(request: object) -> AsyncGenerator[Delta, None]:
        yield Delta("two", "stop", index=0)
        yield Delta("one", finish, index=1)

    monkeypatch.setattr(provider, "stream", answer_half)
    with pytest.raises(Unavailable, match="stopped in the middle"):
        asyncio.run(desk.complete(desk.admit(call(n=2), new_key(store))))


def test_leaving_when_one_of_several_answers_has_ended_is_leaving_in_the_middle(
    desk: Desk, store: Store, provider: StrictProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer_half(request: object) -> AsyncGenerator[Delta, None]:
        yield Delta("two", "stop", index=0)
        yield Delta("one", index=1)

    monkeypatch.setattr(provider, "stream", answer_half)
    ticket = desk.admit(call(n=2), new_key(store))

    async def leave_after_the_first() -> None:
        async with aclosing(stream(desk, ticket)) as deltas:
            await anext(deltas)

    asyncio.run(leave_after_the_first())
    assert usage_row(store, ticket).detail["finish"] == "cancelled"


def test_an_answer_computed_under_another_adapter_is_an_error(
    desk: Desk, store: Store, provider: StrictProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def mix_up(request: object) -> AsyncGenerator[Delta, None]:
        yield Delta("two", "stop", adapter="b" * 64)

    monkeypatch.setattr(provider, "stream", mix_up)
    with pytest.raises(EspalierError, match="another adapter"):
        asyncio.run(desk.complete(desk.admit(call(), new_key(store))))
    assert store.ledger.list(kind="usage")[0].detail["finish"] == "error"


class Loading(StrictProvider):
    """Has one base there, and another that comes when it may."""

    def __init__(self) -> None:
        super().__init__(bases=("path:cold", "path:warm"))
        self.asked = threading.Semaphore(0)
        self.may_come = threading.Event()

    def is_ready(self, base: str) -> bool:
        return base != "path:cold" or self.may_come.is_set()

    def count_prompt_tokens(self, request: ChatRequest) -> int:
        if request.base == "path:cold":
            self.asked.release()
            self.may_come.wait()
        return super().count_prompt_tokens(request)


def test_who_asks_a_base_that_is_there_never_waits_for_those_that_are_being_loaded(
    store: Store, config: GatewayConfig
) -> None:
    provider, key = Loading(), new_key(store, budget_tokens=10_000)
    bases = {name: Target(name, name, "", 64) for name in ("path:cold", "path:warm")}
    desk = open_desk(store, provider, FixedResolver({}, bases), config)

    async def play() -> None:
        cold = [asyncio.create_task(desk.admit_soon(call(model="path:cold"), key)) for _ in range(40)]
        while not provider.asked.acquire(blocking=False):
            await asyncio.sleep(0.001)
        try:
            tickets = [await desk.admit_soon(call(model="path:warm"), key)]
            assert not any(task.done() for task in cold)
            cold[0].cancel()
        finally:
            provider.may_come.set()
        tickets += await asyncio.gather(*cold[1:])
        assert [ticket.target.base for ticket in tickets] == ["path:warm"] + 39 * ["path:cold"]
        for ticket in tickets:
            ticket.finish_reason = "cancelled"
            await desk.close(ticket)
        while store.ledger.balance(key.account).reserved_nusd:  # what was cancelled gives back what it held, too
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(play(), 120))
    desk.stop()
