"""One batch worked on: what is checked, asked, retried, refused, cancelled, and published."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.gateway.batchhouse import CONFIG, TOKEN_NUSD, Forgetful, House, line, many, queue

from espalier.core.config import GatewayConfig
from espalier.core.errors import (
    DigestMismatch,
    EspalierError,
    InvalidInput,
    Unavailable,
)
from espalier.core.ports import ChatRequest, Delta
from espalier.gateway.batch.records import job_id
from espalier.gateway.batch.runner import raise_sign, sees_sign
from espalier.gateway.keys import ApiKey, KeyRing
from espalier.store.store import Store
from espalier.testing.resolver import FixedResolver


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


def test_what_is_not_answered_in_the_window_expires(house: House, store: Store, tmp_path: Path) -> None:
    batch = queue(store, tmp_path, many(3))
    late = batch.model_copy(update={"id": batch.id + "x", "expires_ms": batch.created_ms - 1})
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


def test_whether_a_server_takes_batches_can_be_seen(tmp_path: Path) -> None:
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
