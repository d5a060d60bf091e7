"""One batch in several processes' hands: killed, stopped, cancelled, held up, taken up again."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.unit.gateway.batchhouse import CONFIG, TOKEN_NUSD, House, kill_at, many, queue

from espalier.core.config import GatewayConfig
from espalier.core.errors import EspalierError, LeaseLost, Unavailable
from espalier.core.ids import now_ms
from espalier.core.types import LedgerEntry
from espalier.gateway.assembly import open_desk
from espalier.gateway.batch.records import BatchEnd, job_id
from espalier.gateway.batch.runner import BatchRunner
from espalier.gateway.keys import ApiKey
from espalier.store.jobs import Lease
from espalier.store.store import Store
from espalier.testing.provider import StrictProvider
from espalier.testing.resolver import FixedResolver


def test_an_answer_lost_after_it_was_charged_is_asked_again_and_not_charged_again(
    house: House, store: Store, tmp_path: Path, key: ApiKey
) -> None:
    batch = queue(store, tmp_path, many(6), key=key)
    asyncio.run(kill_at(house, batch, 3, keep_journal=False))  # settled, but nothing of it reached the journal
    charged = house.usage()
    assert len(charged) == 3
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


def test_stopping_in_order_keeps_what_is_done_and_asks_it_no_second_time(
    house: House, store: Store, tmp_path: Path, key: ApiKey
) -> None:
    batch = queue(store, tmp_path, many(40), key=key)
    asyncio.run(kill_at(house, batch, 10, keep_journal=True))
    standing = house.batches.get(batch.id)
    assert standing.end is None and not standing.leased
    assert standing.progress is not None and standing.progress.completed == 10
    house.provider.requests.clear()
    assert house.work_off(batch).completed == 40
    assert len(house.provider.requests) == 30
    assert set(Counter(house.usage()).values()) == {7 * TOKEN_NUSD}


def test_a_cancelled_batch_keeps_what_is_done_and_frees_the_rest(
    house: House, store: Store, tmp_path: Path, key: ApiKey
) -> None:
    batch = queue(store, tmp_path, many(40), key=key)
    asyncio.run(kill_at(house, batch, 10, keep_journal=True))
    store.ledger.reserve(batch.request_id(39), [key.account], 9 * TOKEN_NUSD, detail={})  # what a kill left
    assert house.batches.cancel(batch.id).status == "cancelling"
    end = house.work_off(batch)
    assert (end.status, end.completed) == ("cancelled", 10)
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
    asyncio.run(kill_at(house, batch, 5, keep_journal=False))
    charged = set(house.usage())
    assert len(charged) == 5
    house.batches.cancel(batch.id)
    end = house.work_off(batch)
    assert end.status == "cancelled"
    assert {answer["id"] for answer in house.read(end.output)} == set(house.usage()) == charged


def test_an_alias_that_moves_meanwhile_moves_no_batch(
    house: House, store: Store, resolver: FixedResolver, tmp_path: Path
) -> None:
    batch = queue(store, tmp_path, many(30))
    asyncio.run(kill_at(house, batch, 5, keep_journal=True))
    resolver._versions["support@production"] = resolver._versions["support@v2"]
    end = house.work_off(batch)
    assert {answer["response"]["body"]["model"] for answer in house.read(end.output)} == {"model:support@v1"}


def test_a_batch_the_queue_gave_up_still_hands_over_what_is_done(house: House, store: Store, tmp_path: Path) -> None:
    batch = queue(store, tmp_path, many(30))
    asyncio.run(kill_at(house, batch, 5, keep_journal=True))
    store.jobs.cancel(job_id(batch.id))  # `espalier jobs cancel`, or a worker that died once too often
    end = house.work_off(batch)
    assert (end.status, end.completed) == ("cancelled", 5)


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


def test_a_batch_that_is_put_off_is_not_taken_before_its_time_by_who_works_on_no_other(
    house: House, store: Store, tmp_path: Path
) -> None:
    job = job_id(queue(store, tmp_path, many(1)).id)
    for taken in (True, False):
        lease = store.jobs.lease("one", 60, [house.batches.operation], job_id=job, last=False)
        assert (lease is not None) == taken
        if lease is not None:
            store.jobs.fail(lease, Unavailable("the disk is full"), 3600)


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


def test_what_a_killed_upload_left_is_swept_when_it_is_old(house: House, store: Store, tmp_path: Path) -> None:
    uploads = store.workspace.folder / "uploads"
    uploads.mkdir()
    (uploads / "old").write_bytes(b"x")
    (uploads / "new").write_bytes(b"x")
    os.utime(uploads / "old", (0, 0))
    house.work_off(queue(store, tmp_path, many(1)))
    assert [path.name for path in uploads.iterdir()] == ["new"]


def test_a_process_that_was_held_up_does_not_take_its_own_batch_from_itself(
    house: House, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = queue(store, tmp_path, many(30))
    house.provider.gate = asyncio.Event()
    ahead_ms, stalls, lease = 0, 3, store.jobs.lease

    def look_for_work(*arguments: Any, **how: Any) -> Lease | None:
        nonlocal ahead_ms, stalls
        if house.provider.held >= 4 and stalls:  # as a full disk queue does to a thread on a busy machine
            stalls -= 1
            ahead_ms += 2 * round(CONFIG.lease_s * 1000)
        return lease(*arguments, **how)

    def look() -> Any:
        if not stalls:
            house.provider.gate.set()
        return house.end(batch)

    monkeypatch.setattr(store.jobs, "_clock", lambda: now_ms() + ahead_ms)
    monkeypatch.setattr(store.jobs, "lease", look_for_work)
    house.provider._begin = lambda request: StrictProvider._begin(house.provider, request)  # nothing is asked twice
    asyncio.run(house.until(look))
    assert (stalls, store.jobs.get(job_id(batch.id)).attempts) == (0, 1)
