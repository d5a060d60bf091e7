"""A client's request token makes one batch, on every database, whoever asks at the same moment."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from espalier.core.config import BatchConfig, StoreConfig
from espalier.core.errors import Conflict
from espalier.gateway.batch.bedrock import BedrockRoutes
from espalier.gateway.batch.records import Batches, Token
from espalier.gateway.exchange import Exchange, Message
from espalier.store.store import Store, open_store

AtOnce = Callable[[int, Callable[[int], Any]], list[Any]]

JOB: dict[str, Any] = {
    "jobName": "night", "roleArn": "r", "modelId": "support", "clientRequestToken": "token-1",
    "inputDataConfig": {"s3InputDataConfig": {"s3Uri": "s3://in/asked.jsonl"}},
    "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://in/out"}},
}  # fmt: skip


async def off_loop(call: Callable[..., Any], *arguments: Any) -> Any:
    return call(*arguments)


def create_job(routes: BedrockRoutes, **fields: Any) -> tuple[str, str]:
    """AWS' name of the error, or "", and the job's ARN or what is wrong."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": json.dumps(JOB | fields).encode()}

    async def send(message: Message) -> None:
        sent.append(message)

    async def authenticate(exchange: Exchange) -> None:
        return None

    scope = {"type": "http", "method": "POST", "path": "/model-invocation-job", "headers": []}
    asyncio.run(routes.answer(scope, Exchange(scope, receive, send), authenticate))
    (told,) = json.loads(sent[1]["body"]).values()
    return dict(sent[0]["headers"]).get(b"x-amzn-errortype", b"").decode(), told


@pytest.fixture
def servers(tmp_path: Path, store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two servers of one workspace, neither of which queues a job before both have looked for one."""
    (store.workspace.root / "in").mkdir()
    (store.workspace.root / "in" / "asked.jsonl").write_bytes(b"{}\n")
    other = open_store(store.workspace, StoreConfig(url=database_url))
    both_looked = threading.Barrier(2, timeout=60)
    for each in (store, other):
        put_file = each.blobs.put_file

        def put_together(path: Path, put_file: Callable[[Path], Any] = put_file) -> Any:
            both_looked.wait()
            return put_file(path)

        monkeypatch.setattr(each.blobs, "put_file", put_together)

    yield [BedrockRoutes(each, BatchConfig(buckets={"in": "in"}), off_loop) for each in (store, other)]
    other.close()


def test_two_servers_asked_at_once_with_one_token_make_one_job(
    servers: list[BedrockRoutes], store: Store, at_once: AtOnce
) -> None:
    first, second = at_once(2, lambda index: create_job(servers[index]))
    assert first == second and first[0] == ""
    (standing,) = Batches(store).list()
    assert first[1].endswith(standing.batch.id.removeprefix("batch_"))
    assert standing.started_ms == 0  # its job is in the queue


def test_of_two_who_ask_at_once_for_different_jobs_by_one_token_one_is_told(
    servers: list[BedrockRoutes], store: Store, at_once: AtOnce
) -> None:
    told = at_once(2, lambda index: create_job(servers[index], jobName=f"night-{index}"))
    assert sorted(name for name, _ in told) == ["", "ConflictException"]
    (standing,) = Batches(store).list()
    made = [name for name, _ in told].index("")
    assert standing.batch.metadata["jobName"] == f"night-{made}"


def test_of_many_who_queue_under_one_token_all_get_the_same_batch(store: Store, at_once: AtOnce) -> None:
    batches, token = Batches(store), Token("token-1", "a" * 64)
    made = at_once(8, lambda _: batches.create("converse", "a.jsonl", "0" * 64, 1, token=token))
    assert len({batch.id for batch in made}) == 1
    assert len(batches.list()) == 1
    with pytest.raises(Conflict, match="other parameters"):
        batches.create("converse", "a.jsonl", "0" * 64, 1, token=Token("token-1", "b" * 64))


def test_a_token_of_a_batch_that_was_not_queued_is_free_again(store: Store) -> None:
    batches, token = Batches(store), Token("token-1", "a" * 64)
    with pytest.raises(RuntimeError), store.transaction():
        batches.create("converse", "a.jsonl", "0" * 64, 1, token=token)
        raise RuntimeError
    assert batches.find_made(token, "") is None
    assert batches.create("converse", "a.jsonl", "0" * 64, 1, token=token) == batches.find_made(token, "")
