"""One batch worked on: what is checked, asked, retried, refused, charged, cancelled, and published."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from espalier.core.config import BatchConfig, GatewayConfig, PriceConfig
from espalier.core.errors import Conflict, DigestMismatch, EspalierError, InvalidInput, LeaseLost, Unavailable
from espalier.core.ports import ChatRequest, Delta
from espalier.core.refs import Ref
from espalier.core.types import LedgerEntry, SamplingSpec
from espalier.gateway.assembly import open_desk
from espalier.gateway.batch.records import Batch, BatchEnd, Batches, job_id
from espalier.gateway.batch.runner import BatchRunner, raise_sign, sees_sign
from espalier.gateway.desk import Desk
from espalier.gateway.keys import ApiKey, KeyRing
from espalier.store.store import Store
from espalier.testing.provider import StrictProvider
from espalier.testing.resolver import FixedResolver
from espalier.wire.openai.request import decode_chat

CONFIG = BatchConfig(max_in_flight=4, lease_s=5, sync_every_s=0.01)
TOKEN_NUSD = 1000


def line(name: str, words: str, model: str = "support", **more: Any) -> dict[str, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": words}], **more}
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}


def many(count: int) -> list[dict[str, Any]]:
    return [line(f"n{number}", f"a {number}") for number in range(count)]


def queue(store: Store, folder: Path, lines: list[Any], *, key: ApiKey | None = None, **more: Any) -> Batch:
    path = folder / "asked.jsonl"
    path.write_bytes(b"".join((raw if isinstance(raw, bytes) else json.dumps(raw).encode()) + b"\n" for raw in lines))
    sha256, size_bytes = store.blobs.put_file(path)
    return Batches(store).create(more.pop("shape", "openai"), path.name, sha256, size_bytes, key=key, **more)


@pytest.fixture
def key(store: Store) -> ApiKey:
    return KeyRing(store).create("batch", budget_nusd=10**9).key


class Forgetful(StrictProvider):
    """The same, but a request may come again: that is what a crash brings about. After `most` answers it is silent."""

    most = 10**9

    async def stream(self, request: ChatRequest) -> AsyncIterator[Delta]:
        if len(self.finished) >= self.most:
            await asyncio.Event().wait()
        async for delta in super().stream(request):
            yield delta

    def _begin(self, request: ChatRequest) -> None:
        self.requests.pop(request.id, None)
        self.finished.discard(request.id)
        super()._begin(request)


class House:
    """A desk and a runner over it, for one test."""

    def __init__(self, store: Store, resolver: FixedResolver, config: GatewayConfig, provider: Any) -> None:
        self.store, self.provider = store, provider
        self.batches = Batches(store)
        self.desk: Desk = open_desk(store, provider, resolver, config)

    async def until(self, holds: Callable[[], Any], config: BatchConfig = CONFIG) -> None:
        """Work until something holds, then stop in order; the test's own time limit ends it."""
        await self.desk.start()
        runner = BatchRunner(self.store, self.desk, config)
        runner.start()
        try:
            while not holds():
                await asyncio.sleep(0.005)
        finally:
            await runner.stop()

    def end(self, batch: Batch) -> BatchEnd | None:
        return self.batches.get(batch.id).end

    def work_off(self, batch: Batch, config: BatchConfig = CONFIG) -> BatchEnd:
        asyncio.run(self.until(lambda: self.end(batch), config))
        end = self.end(batch)
        assert end is not None
        return end

    def read(self, sha256: str) -> list[dict[str, Any]]:
        return [json.loads(raw) for raw in self.store.blobs.read(sha256).splitlines()] if sha256 else []

    def usage(self) -> dict[str, int]:
        return {row.request: row.amount_nusd for row in self.store.ledger.list(kind="usage", limit=10_000)}


@pytest.fixture
def house(store: Store, resolver: FixedResolver, config: GatewayConfig) -> Any:
    made = House(store, resolver, config, Forgetful())
    yield made
    made.desk.stop()


def test_answers_and_failures_are_whole_and_in_the_input_s_order(
    house: House, store: Store, tmp_path: Path, key: ApiKey
) -> None:
    lines: list[Any] = many(30)
    lines[3] = b"{"
    lines[7] = line("n6", "a name given before")
    lines[9] = line("n9", "hello", model="suport")
    lines[11] = line("n11", "hello", temperature=-1)
    lines[13] = line("n13", " ".join(["long"] * 70))
    batch = queue(store, tmp_path, lines, key=key)
    end = house.work_off(batch)
    assert (end.status, end.total, end.completed, end.failed, end.fault) == ("completed", 30, 25, 5, "")
    answers, failures = house.read(end.output), house.read(end.errors)
    bad = {3, 7, 9, 11, 13}
    assert [answer["custom_id"] for answer in answers] == [f"n{n}" for n in range(30) if n not in bad]
    assert [answer["response"]["body"]["choices"][0]["message"]["content"] for answer in answers] == [
        f"{n} a" for n in range(30) if n not in bad
    ]
    told = [(failure["error"] or failure["response"]["body"]["error"])["code"] for failure in failures]
    assert told == [
        "invalid_json_line", "duplicate_custom_id", "model_not_found", "invalid_value", "invalid_value",
    ]  # fmt: skip
    assert [failure["response"] and failure["response"]["status_code"] for failure in failures] == [
        None, None, 404, 400, 400,
    ]  # fmt: skip
    assert end.prompt_tokens == 25 * 5 and end.completion_tokens == 25 * 2
    assert len(house.usage()) == 25
    assert store.ledger.balance(key.account).reserved_nusd == 0


def test_requests_go_in_the_batch_s_lane_under_ids_of_their_own_with_seeds_of_their_own(
    house: House, store: Store, tmp_path: Path
) -> None:
    batch = queue(store, tmp_path, [line("a", "x"), line("b", "x"), line("c", "x", seed=7)])
    house.work_off(batch)
    requests = [house.provider.requests[batch.request_id(number)] for number in range(3)]
    assert {request.lane for request in requests} == {"batch"}
    seeds = [request.sampling.seed for request in requests]
    assert seeds[2] == 7 and None not in seeds and seeds[0] != seeds[1]


def test_at_most_so_many_are_under_way(house: House, store: Store, tmp_path: Path) -> None:
    most = 0
    provider = house.provider

    async def watch() -> None:
        nonlocal most
        provider.gate = asyncio.Event()
        batch = queue(store, tmp_path, many(20))

        def look() -> Any:
            nonlocal most
            most = max(most, len(provider.open))
            if provider.held >= 4:
                provider.gate.set()
            return house.end(batch)

        await house.until(look)

    asyncio.run(watch())
    assert most == 4


def test_an_answer_lost_after_it_was_charged_is_asked_again_and_not_charged_again(
    house: House, store: Store, tmp_path: Path, key: ApiKey
) -> None:
    batch = queue(store, tmp_path, many(6), key=key)
    asyncio.run(_kill_at(house, batch, 3, keep_journal=False))  # settled, but nothing of it reached the journal
    charged = house.usage()
    assert len(charged) >= 3
    end = house.work_off(batch)
    assert end.completed == 6
    assert house.usage() == {batch.request_id(number): 7 * TOKEN_NUSD for number in range(6)}
    assert store.ledger.balance(key.account).spent_nusd == 6 * 7 * TOKEN_NUSD


def test_a_charged_line_that_comes_out_otherwise_the_second_time_costs_what_it_did_the_first_time(
    house: House, store: Store, tmp_path: Path, key: ApiKey
) -> None:
    batch = queue(store, tmp_path, many(3), key=key)
    one = batch.request_id(1)  # charged at another price for another answer, by a process that was killed then
    store.ledger.reserve(one, [key.account], 99 * TOKEN_NUSD, holder="holder_gone")
    store.ledger.settle(
        LedgerEntry(id="entry_1", request=one, kind="usage", key=key.id, amount_nusd=5 * TOKEN_NUSD, at_ms=1)
    )
    assert house.work_off(batch).completed == 3
    assert house.usage() == {batch.request_id(n): (5 if n == 1 else 7) * TOKEN_NUSD for n in range(3)}
    balance = store.ledger.balance(key.account)
    assert (balance.spent_nusd, balance.reserved_nusd) == (19 * TOKEN_NUSD, 0)


async def _kill_at(house: House, batch: Batch, answers: int, *, keep_journal: bool) -> None:
    """Work until so many answers are settled, then end as a kill would: nothing is put down any more."""
    config = CONFIG.model_copy(update={"sync_every_s": 0.01 if keep_journal else 60.0})
    await house.desk.start()
    house.provider.most = answers  # the others are under way when it ends, however quick the machine is
    runner = BatchRunner(house.store, house.desk, config)
    runner.start()
    while len(house.usage()) < answers:
        await asyncio.sleep(0.005)
    work = runner._works[batch.id].work
    if not keep_journal:
        work._fresh.clear()
        work._put_down = lambda fresh: None  # type: ignore[method-assign]
    await runner.stop()
    house.provider.most = Forgetful.most


def test_a_reservation_that_a_dead_process_left_waits_for_its_line(
    house: House, store: Store, tmp_path: Path, key: ApiKey, resolver: FixedResolver, config: GatewayConfig
) -> None:
    batch = queue(store, tmp_path, many(3), key=key)
    detail = {"asked": "support", "model": "model:support@v1"}
    store.ledger.reserve(batch.request_id(1), [key.account], 25 * TOKEN_NUSD, holder="holder_gone", detail=detail)
    asyncio.run(house.desk.start())
    assert house.usage() == {}, "the next start must not settle it"
    end = house.work_off(batch)
    assert end.completed == 3
    assert house.usage() == {batch.request_id(number): 7 * TOKEN_NUSD for number in range(3)}
    balance = store.ledger.balance(key.account)
    assert (balance.spent_nusd, balance.reserved_nusd) == (21 * TOKEN_NUSD, 0)


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


def test_stopping_in_order_keeps_what_is_done_and_asks_it_no_second_time(
    house: House, store: Store, tmp_path: Path, key: ApiKey
) -> None:
    batch = queue(store, tmp_path, many(40), key=key)
    asyncio.run(_kill_at(house, batch, 10, keep_journal=True))
    standing = house.batches.get(batch.id)
    assert standing.end is None and not standing.leased
    assert standing.progress is not None and standing.progress.completed >= 10
    before = standing.progress.completed
    house.provider.requests.clear()
    assert house.work_off(batch).completed == 40
    assert len(house.provider.requests) == 40 - before
    assert set(Counter(house.usage()).values()) == {7 * TOKEN_NUSD}


def test_a_cancelled_batch_keeps_what_is_done_and_frees_the_rest(
    house: House, store: Store, tmp_path: Path, key: ApiKey
) -> None:
    batch = queue(store, tmp_path, many(40), key=key)
    asyncio.run(_kill_at(house, batch, 10, keep_journal=True))
    store.ledger.reserve(batch.request_id(39), [key.account], 9 * TOKEN_NUSD, detail={})  # what a kill left
    assert house.batches.cancel(batch.id).status == "cancelling"
    end = house.work_off(batch)
    assert end.status == "cancelled" and 10 <= end.completed < 40
    answers, failures = house.read(end.output), house.read(end.errors)
    assert len(answers) == end.completed and len(answers) + len(failures) == 40
    assert {failure["error"]["code"] for failure in failures} == {"batch_cancelled"}
    assert {answer["id"] for answer in answers} == set(house.usage()), "what was charged is delivered"
    assert store.ledger.balance(key.account).reserved_nusd == 0
    with pytest.raises(EspalierError, match="has ended"):
        house.batches.cancel(batch.id)


def test_a_line_charged_for_and_lost_is_delivered_even_when_its_batch_is_cancelled(
    house: House, store: Store, tmp_path: Path, key: ApiKey
) -> None:
    batch = queue(store, tmp_path, many(20), key=key)
    asyncio.run(_kill_at(house, batch, 5, keep_journal=False))
    charged = set(house.usage())
    house.batches.cancel(batch.id)
    end = house.work_off(batch)
    assert end.status == "cancelled"
    assert {answer["id"] for answer in house.read(end.output)} == set(house.usage()) >= charged


def test_what_is_not_answered_in_the_window_expires(house: House, store: Store, tmp_path: Path) -> None:
    batch = queue(store, tmp_path, many(3))
    late = batch.model_copy(update={"id": batch.id + "x", "expires_ms": batch.created_ms})
    store.records.put("batch", late.id, late)
    store.jobs.enqueue(house.batches.operation, {"batch": late.id}, "local", job_id=job_id(late.id))
    end = house.work_off(late)
    assert (end.status, end.completed) == ("expired", 0)
    assert not any(request.startswith(f"{late.id}-") for request in house.provider.requests)
    assert [failure["error"]["code"] for failure in house.read(end.errors)] == ["batch_expired"] * 3


def test_a_revoked_key_s_batch_ends(house: House, store: Store, tmp_path: Path, key: ApiKey) -> None:
    batch = queue(store, tmp_path, many(3), key=key)
    KeyRing(store).revoke(key.id)
    end = house.work_off(batch)
    assert (end.status, house.provider.requests) == ("cancelled", {})
    assert {failure["error"]["code"] for failure in house.read(end.errors)} == {"invalid_api_key"}


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


class Moody(Forgetful):
    """Is too busy now and then, fails once in a while, and has one question that it cannot answer."""

    def __init__(self) -> None:
        super().__init__()
        self.tries: Counter[str] = Counter()

    async def stream(self, request: ChatRequest) -> AsyncIterator[Delta]:
        self.tries[request.id] += 1
        number = int(request.messages[0].content.split()[-1])
        if number == 5:
            raise EspalierError("the numbers overflowed")
        if self.tries[request.id] == 1 and number % 3 == 0:
            raise Unavailable("busy", retry_after_s=0.01)
        if self.tries[request.id] == 1 and number % 3 == 1:
            raise ZeroDivisionError
        async for delta in super().stream(request):
            yield delta


def test_what_may_pass_is_tried_again_and_what_does_not_is_refused(
    store: Store, resolver: FixedResolver, config: GatewayConfig, tmp_path: Path, key: ApiKey
) -> None:
    provider = Moody()
    house = House(store, resolver, config, provider)
    batch = queue(store, tmp_path, many(9), key=key)
    end = house.work_off(batch)
    assert (end.completed, end.failed) == (8, 1)
    (failure,) = house.read(end.errors)
    assert (failure["custom_id"], failure["response"]["status_code"]) == ("n5", 500)
    assert provider.tries[batch.request_id(5)] == 4
    assert house.usage() == {batch.request_id(n): 7 * TOKEN_NUSD for n in range(9) if n != 5}
    assert store.ledger.balance(key.account).reserved_nusd == 0
    house.desk.stop()


def test_an_alias_that_moves_meanwhile_moves_no_batch(
    house: House, store: Store, resolver: FixedResolver, tmp_path: Path
) -> None:
    batch = queue(store, tmp_path, many(30))
    asyncio.run(_kill_at(house, batch, 5, keep_journal=True))
    resolver._versions["support@production"] = resolver._versions["support@v2"]
    end = house.work_off(batch)
    assert {answer["response"]["body"]["model"] for answer in house.read(end.output)} == {"model:support@v1"}


def test_a_key_that_may_not_ask_a_model_is_refused_line_by_line(house: House, store: Store, tmp_path: Path) -> None:
    key = KeyRing(store).create("narrow", models=["other*"]).key
    end = house.work_off(queue(store, tmp_path, many(2), key=key))
    assert [failure["response"]["status_code"] for failure in house.read(end.errors)] == [403, 403]


@pytest.mark.parametrize("lines", [[], [b"", b"  "]])
def test_a_file_without_a_line_fails_as_a_whole(house: House, store: Store, tmp_path: Path, lines: list[bytes]) -> None:
    end = house.work_off(queue(store, tmp_path, lines))
    assert (end.status, end.fault_code, end.output) == ("failed", "invalid_input", "")
    assert "no line" in end.fault


def test_a_file_with_too_many_lines_and_a_line_that_is_too_long_are_refused(
    house: House, store: Store, tmp_path: Path
) -> None:
    few = CONFIG.model_copy(update={"max_lines": 2})
    assert house.work_off(queue(store, tmp_path, many(3)), few).status == "failed"
    end = house.work_off(queue(store, tmp_path, [line("long", "x" * (1 << 20)), line("short", "x")]))
    assert (end.completed, end.failed) == (1, 1)
    assert house.read(end.errors)[0]["error"]["code"] == "invalid_request"


@pytest.mark.parametrize("shape", ["openai", "invoke"])
def test_no_depth_of_nesting_stops_a_batch(house: House, store: Store, tmp_path: Path, shape: Any) -> None:
    def nested(depth: int) -> bytes:
        asked = line(
            str(depth), "x", response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": 0}}
        )
        record = asked if shape == "openai" else {"recordId": str(depth), "modelInput": asked["body"]}
        return (
            json.dumps(record).encode().replace(b'"schema": 0', b'"schema": {"x":' + b"[" * depth + b"]" * depth + b"}")
        )

    batch = queue(
        store,
        tmp_path,
        [nested(depth) for depth in [*range(200, 300), *range(950, 1010)]],
        shape=shape,
        model="support",
    )
    end = house.work_off(batch)
    assert (end.status, end.total) == ("completed", 160)
    assert end.completed > 40 and end.failed > 60 and end.completed + end.failed == 160


@pytest.mark.parametrize("shape", ["invoke", "converse"])
def test_bedrock_s_records_come_back_in_order_with_their_manifest(
    house: House, store: Store, tmp_path: Path, shape: Any
) -> None:
    def record(number: int) -> dict[str, Any]:
        content: Any = [{"text": f"a {number}"}] if shape == "converse" else f"a {number}"
        return {"recordId": f"R{number}", "modelInput": {"messages": [{"role": "user", "content": content}]}}

    lines: list[Any] = [record(0), {"recordId": "R1", "modelInput": {"messages": []}}, record(2), b"{"]
    place = tmp_path / "out"
    batch = queue(store, tmp_path, lines, shape=shape, model="support", destination=str(place))
    end = house.work_off(batch)
    assert (end.status, end.completed, end.failed, end.errors) == ("completed", 2, 2, "")
    output = place / batch.id / "asked.jsonl.out"
    records = [json.loads(raw) for raw in output.read_bytes().splitlines()]
    assert [record["recordId"] for record in records] == ["R0", "R1", "R2", "R0000000004"]
    assert ["modelOutput" in record for record in records] == [True, False, True, False]
    assert records[1]["error"]["errorCode"] == 400
    said = records[2]["modelOutput"]
    text = (
        said["output"]["message"]["content"][0]["text"]
        if shape == "converse"
        else said["choices"][0]["message"]["content"]
    )
    assert text == "2 a"
    manifest = json.loads((place / batch.id / "manifest.json.out").read_bytes())
    assert manifest == {
        "totalRecordCount": 4, "processedRecordCount": 4, "successRecordCount": 2, "errorRecordCount": 2,
        "inputTokenCount": 10, "outputTokenCount": 4,
    }  # fmt: skip
    output.write_bytes(b"changed by its reader")
    assert house.read(end.output) == records, "the store does not feel it"


def test_results_that_cannot_be_put_where_they_were_to_go_are_kept(house: House, store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"no folder")
    record = {"recordId": "R0", "modelInput": {"messages": [{"role": "user", "content": "a"}]}}
    batch = queue(store, tmp_path, [record], shape="invoke", model="support", destination=str(tmp_path / "file"))
    end = house.work_off(batch)
    assert (end.status, end.completed) == ("failed", 1) and "cannot write" in end.fault
    assert [answer["recordId"] for answer in house.read(end.output)] == ["R0"]


def test_a_batch_the_queue_gave_up_still_hands_over_what_is_done(house: House, store: Store, tmp_path: Path) -> None:
    batch = queue(store, tmp_path, many(30))
    asyncio.run(_kill_at(house, batch, 5, keep_journal=True))
    store.jobs.cancel(job_id(batch.id))  # `espalier jobs cancel`, or a worker that died once too often
    end = house.work_off(batch)
    assert end.status == "cancelled" and end.completed >= 5


def test_who_lost_its_lease_writes_down_no_end(house: House, store: Store, tmp_path: Path) -> None:
    batch = queue(store, tmp_path, many(1))
    one = store.jobs.lease("one", 30, [house.batches.operation])
    assert one is not None
    store.jobs.release(one)
    other = store.jobs.lease("other", 30, [house.batches.operation])
    assert other is not None
    with pytest.raises(LeaseLost):
        house.batches.finish(one, BatchEnd(id=batch.id, status="completed"))
    assert house.end(batch) is None
    house.batches.finish(other, BatchEnd(id=batch.id, status="completed"))
    assert house.end(batch) is not None


def test_two_runners_do_one_batch_once(
    house: House, store: Store, resolver: FixedResolver, config: GatewayConfig, tmp_path: Path
) -> None:
    batch = queue(store, tmp_path, many(40))
    desk = open_desk(store, house.provider, resolver, config)

    async def both() -> None:
        other = BatchRunner(store, desk, CONFIG)
        other.start()
        await house.until(lambda: house.end(batch))
        await other.stop()

    house.provider._begin = lambda request: StrictProvider._begin(house.provider, request)  # twice is an error again
    asyncio.run(both())
    end = house.end(batch)
    assert end is not None and end.completed == 40
    desk.stop()


def test_another_folder_s_processes_leave_the_batch_alone(house: House, store: Store, tmp_path: Path) -> None:
    queue(store, tmp_path, many(1))
    assert store.jobs.lease("elsewhere", 30, ["batches:home_elsewhere"]) is None
    assert store.jobs.lease("worker", 30, without="batches:") is None


def test_whether_a_server_takes_batches_can_be_seen(tmp_path: Path) -> None:
    import os

    assert not sees_sign(tmp_path)
    one, two = raise_sign(tmp_path), raise_sign(tmp_path)
    assert sees_sign(tmp_path)
    os.close(one)
    assert sees_sign(tmp_path)
    os.close(two)
    assert not sees_sign(tmp_path)


@pytest.mark.parametrize("window", ["", "24", "h", "-1h", "0h", "999999h", "31d", "1.5h", "24 h"])
def test_a_window_that_is_none_is_refused(store: Store, tmp_path: Path, window: str) -> None:
    with pytest.raises(InvalidInput):
        queue(store, tmp_path, many(1), window=window)


def test_an_input_that_changed_in_the_store_fails_the_batch(house: House, store: Store, tmp_path: Path) -> None:
    batch = queue(store, tmp_path, many(1))
    blob = store.blobs.path(batch.source)  # type: ignore[attr-defined]
    blob.chmod(0o644)
    blob.write_bytes(b"other bytes")
    end = house.work_off(batch)
    assert (end.status, end.fault_code) == ("failed", DigestMismatch.code)


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


def test_what_a_killed_upload_left_is_swept_when_it_is_old(house: House, store: Store, tmp_path: Path) -> None:
    import os

    uploads = store.workspace.folder / "uploads"
    uploads.mkdir()
    (uploads / "old").write_bytes(b"x")
    (uploads / "new").write_bytes(b"x")
    os.utime(uploads / "old", (0, 0))
    house.work_off(queue(store, tmp_path, many(1)))
    assert [path.name for path in uploads.iterdir()] == ["new"]


def test_a_process_that_was_held_up_does_not_take_its_own_batch_from_itself(
    house: House, store: Store, tmp_path: Path
) -> None:
    batch = queue(store, tmp_path, many(30))
    house.provider.gate = asyncio.Event()
    stalls = 3

    def look() -> Any:
        nonlocal stalls
        if house.provider.held >= 4 and stalls:  # as torch's import does to a loop on a busy machine
            stalls -= 1
            time.sleep(0.6)
        elif not stalls:
            house.provider.gate.set()
        return house.end(batch)

    house.provider._begin = lambda request: StrictProvider._begin(house.provider, request)  # nothing is asked twice
    asyncio.run(house.until(look, CONFIG.model_copy(update={"lease_s": 0.5})))
    assert store.jobs.get(job_id(batch.id)).attempts == 1
