"""The routes of files, batches and jobs, asked for what no store could take."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from espalier.core.config import BatchConfig
from espalier.core.errors import InvalidInput
from espalier.gateway.batch.bedrock import BedrockRoutes
from espalier.gateway.batch.routes import BatchRoutes
from espalier.gateway.exchange import Exchange, Message
from espalier.gateway.keys import ApiKey
from espalier.store.store import Store

JOB: dict[str, Any] = {
    "jobName": "night", "roleArn": "r", "modelId": "support",
    "inputDataConfig": {"s3InputDataConfig": {"s3Uri": "s3://in/asked.jsonl"}},
    "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://in/out"}},
}  # fmt: skip


def ask(routes: Any, method: str, path: str, body: bytes = b"", query: str = "") -> tuple[int, bytes]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    async def send(message: Message) -> None:
        sent.append(message)

    async def authenticate(exchange: Exchange) -> ApiKey | None:
        return None

    scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": query.encode()}
    asyncio.run(routes.answer(scope, Exchange(scope, receive, send), authenticate))
    return sent[0]["status"], sent[1]["body"]


async def at_once(call: Any, *arguments: Any) -> Any:
    return call(*arguments)


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"\xff", b"[" * 60_000,
        b'{"input_file_id": "\\ud800", "endpoint": "/v1/chat/completions", "completion_window": "24h"}',
        b'{"input_file_id": "f", "endpoint": "/v1/chat/completions", "completion_window": "24h",'
        b' "metadata": {"half": "\\udfff"}}',
    ],
    ids=["broken", "bytes", "deep", "half an id", "half a word"],
)  # fmt: skip
def test_a_body_that_is_no_text_is_refused(store: Store, body: bytes) -> None:
    with pytest.raises(InvalidInput, match="the body is not"):
        ask(BatchRoutes(store, BatchConfig(), at_once), "POST", "/v1/batches", body)
    job = ask(BedrockRoutes(store, BatchConfig(buckets={"in": "in"}), at_once), "POST", "/model-invocation-job", body)
    assert (job[0], b"the body is not" in job[1]) == (400, True)


@pytest.mark.parametrize("limit", ["", "0", "-1", "x", "1" + "0" * 5000, "000000001" + "9" * 5000])
def test_a_limit_that_is_no_number_of_rows_is_refused(store: Store, limit: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        ask(BatchRoutes(store, BatchConfig(), at_once), "GET", "/v1/files", query=f"limit={limit or '%20'}")
    assert refusal.value.where == "limit"


@pytest.mark.parametrize("uri", ["s3://in/a\0.jsonl", "s3://in/a\ud800.jsonl", "s3://i\0/a.jsonl"])
def test_a_place_that_no_file_can_have_is_refused(store: Store, uri: str) -> None:
    routes = BedrockRoutes(store, BatchConfig(buckets={"in": "in"}), at_once)
    asked_in = JOB | {"inputDataConfig": {"s3InputDataConfig": {"s3Uri": uri}}}
    asked_out = JOB | {"outputDataConfig": {"s3OutputDataConfig": {"s3Uri": uri}}}
    for asked in (asked_in, asked_out):
        status, said = ask(routes, "POST", "/model-invocation-job", json.dumps(asked).encode())
        assert status == 400, said
