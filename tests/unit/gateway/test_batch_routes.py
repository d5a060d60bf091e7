"""The routes of files, batches and jobs, asked for what no store could take."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlencode

import pytest

from espalier.core.config import BatchConfig
from espalier.core.errors import InvalidInput
from espalier.gateway.batch.bedrock import BedrockRoutes
from espalier.gateway.batch.files import Files, Purpose, StoredFile
from espalier.gateway.batch.records import Batches
from espalier.gateway.batch.routes import BatchRoutes
from espalier.gateway.exchange import Exchange, Message
from espalier.gateway.keys import ApiKey
from espalier.store.store import Store

JOB: dict[str, Any] = {
    "jobName": "night", "roleArn": "r", "modelId": "support",
    "inputDataConfig": {"s3InputDataConfig": {"s3Uri": "s3://in/asked.jsonl"}},
    "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://in/out"}},
}  # fmt: skip


def exchange(
    routes: Any, method: str, path: str, body: bytes = b"", query: str = "", key: ApiKey | None = None
) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    async def send(message: Message) -> None:
        sent.append(message)

    async def authenticate(exchange: Exchange) -> ApiKey | None:
        return key

    scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": query.encode()}
    asyncio.run(routes.answer(scope, Exchange(scope, receive, send), authenticate))
    return sent


def ask(*asked: Any, **more: Any) -> tuple[int, bytes]:
    sent = exchange(*asked, **more)
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


@pytest.mark.parametrize(("path", "most"), [("/v1/files", 10_000), ("/v1/batches", 100)])
def test_a_page_is_as_long_as_openai_documents_and_no_longer(store: Store, path: str, most: int) -> None:
    routes = BatchRoutes(store, BatchConfig(), at_once)
    assert ask(routes, "GET", path, query=f"limit={most}")[0] == 200
    with pytest.raises(InvalidInput) as refusal:
        ask(routes, "GET", path, query=f"limit={most + 1}")
    assert (refusal.value.where, refusal.value.hint) == ("limit", f"1 to {most:,}")


@pytest.mark.parametrize("path", ["/v1/files", "/v1/batches"])
@pytest.mark.parametrize("query", ["order=up", "after=absent", "after=%00"])
def test_an_order_or_a_place_that_there_is_not_is_refused(store: Store, path: str, query: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        ask(BatchRoutes(store, BatchConfig(), at_once), "GET", path, query=query)
    assert refusal.value.where == query.partition("=")[0] and refusal.value.hint


def make_key(id: str, lent_by: str = "") -> ApiKey:
    return ApiKey(id=id, name=id, actor=id, created_ms=1, created_by="local", lent_by=lent_by)


def walk(routes: BatchRoutes, path: str, key: ApiKey | None, **query: str) -> list[str]:
    """Every id of a list, page by page as a client goes; each page that has more after it is full."""
    found: list[str] = []
    while True:
        asked = query | ({"after": found[-1]} if found else {})
        page = json.loads(ask(routes, "GET", path, query=urlencode(asked), key=key)[1])
        ids = [item["id"] for item in page["data"]]
        assert (page["first_id"], page["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
        found += ids
        if not page["has_more"]:
            return found
        assert len(ids) == int(query["limit"])


KEYS = (make_key("k1"), make_key("k2"), make_key("loan", lent_by="k1"), None)


@pytest.mark.parametrize("limit", ["1", "2", "3", "50"])
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_every_page_of_files_is_full_while_there_are_more(store: Store, limit: str, order: str) -> None:
    routes, files = BatchRoutes(store, BatchConfig(), at_once), Files(store)
    made: list[StoredFile] = []
    for number in range(24):  # runs of one purpose longer than a page, so that a page filtered afterwards is empty
        purpose: Purpose = "batch" if number % 8 < 3 else "batch_output"
        owner = ("k1", "k2", "")[number % 3] if number > 12 else "k1"
        made.append(files.record("0" * 64, 1, "asked.jsonl", purpose, owner))
    for file in made[::5]:
        files.delete(file.id, file.owner)
    there = [file for number, file in enumerate(made) if number % 5][:: 1 if order == "asc" else -1]
    for key in KEYS:
        owner = key.payer if key else ""
        for wanted in ("batch", "batch_output", "vision", ""):
            query = {"limit": limit, "order": order, "purpose": wanted}
            expected = [file.id for file in there if file.owner == owner and wanted in ("", file.purpose)]
            assert walk(routes, "/v1/files", key, **query) == expected, (owner, wanted)


def test_a_client_that_deletes_what_it_is_shown_sees_every_file(store: Store) -> None:
    routes, files = BatchRoutes(store, BatchConfig(), at_once), Files(store)
    made = [files.record("0" * 64, 1, f"{number}.jsonl", "batch", "").id for number in range(5)]
    found: list[str] = []
    for _ in made:
        query = urlencode({"limit": 1} | ({"after": found[-1]} if found else {}))
        (shown,) = json.loads(ask(routes, "GET", "/v1/files", query=query)[1])["data"]
        ask(routes, "DELETE", f"/v1/files/{shown['id']}")
        found.append(shown["id"])
    assert found == made[::-1]
    assert walk(routes, "/v1/files", None) == []


@pytest.mark.parametrize("limit", ["1", "2", "50"])
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_every_page_of_batches_is_full_while_there_are_more(store: Store, limit: str, order: str) -> None:
    routes, batches = BatchRoutes(store, BatchConfig(), at_once), Batches(store)
    made = [batches.create("openai", "a.jsonl", "0" * 64, 1, key=KEYS[number * 3 % 4]) for number in range(13)]
    for key in KEYS:
        owner = key.payer if key else ""
        expected = [batch.id for batch in made if batch.owner == owner][:: 1 if order == "asc" else -1]
        assert walk(routes, "/v1/batches", key, limit=limit, order=order) == expected


@pytest.mark.parametrize("path", ["/v1/files", "/v1/batches"])
def test_another_s_file_or_batch_is_no_place_to_go_on_from(store: Store, path: str) -> None:
    file = Files(store).record("0" * 64, 1, "a.jsonl", "batch", "k1")
    batch = Batches(store).create("openai", "a.jsonl", "0" * 64, 1, key=KEYS[0])
    query = f"after={file.id if path == '/v1/files' else batch.id}"
    routes = BatchRoutes(store, BatchConfig(), at_once)
    assert ask(routes, "GET", path, query=query, key=KEYS[2])[0] == 200  # a loan of that key's
    for key in (KEYS[1], None):
        with pytest.raises(InvalidInput) as refusal:
            ask(routes, "GET", path, query=query, key=key)
        assert refusal.value.where == "after"


@pytest.fixture
def bedrock(store: Store) -> BedrockRoutes:
    (store.workspace.root / "in").mkdir()
    for name in ("asked.jsonl", "other.jsonl"):
        (store.workspace.root / "in" / name).write_bytes(b"{}\n")
    return BedrockRoutes(store, BatchConfig(buckets={"in": "in"}), at_once)


def create(routes: BedrockRoutes, key: ApiKey | None = None, **fields: Any) -> tuple[str, str]:
    """AWS' name of the error, or "", and the job's ARN or what is wrong."""
    sent = exchange(routes, "POST", "/model-invocation-job", json.dumps(JOB | fields).encode(), key=key)
    (told,) = json.loads(sent[1]["body"]).values()
    return dict(sent[0]["headers"]).get(b"x-amzn-errortype", b"").decode(), told


def test_a_request_token_makes_one_job_also_when_its_input_is_gone_and_the_list_has_moved_on(
    store: Store, bedrock: BedrockRoutes
) -> None:
    first = create(bedrock, clientRequestToken="token-1")
    assert create(bedrock, clientRequestToken="token-2")[1] != first[1]
    (store.workspace.root / "in" / "asked.jsonl").unlink()
    spelt_out = {"timeoutDurationInHours": 24, "modelInvocationType": "InvokeModel"}  # what is meant without them
    assert create(bedrock, clientRequestToken="token-1", **spelt_out) == first
    assert len(Batches(store).list()) == 2


def test_without_a_request_token_every_request_is_a_job_of_its_own(store: Store, bedrock: BedrockRoutes) -> None:
    assert create(bedrock)[1] != create(bedrock)[1]


def test_a_request_token_is_its_payer_s_own(store: Store, bedrock: BedrockRoutes) -> None:
    made = [create(bedrock, key, clientRequestToken="token-1")[1] for key in KEYS]
    assert made[0] == made[2]  # a loan draws on that key
    assert len(set(made)) == 3
    assert create(bedrock, clientRequestToken="Token-1")[1] not in made  # AWS: case-sensitive


@pytest.mark.parametrize("token", ["", "-a", "a-", "a_b", "a b", "ü", "a\0", "a\n", "a" * 257])
def test_a_request_token_that_aws_would_refuse_is_refused(bedrock: BedrockRoutes, token: str) -> None:
    assert create(bedrock, clientRequestToken=token)[0] == "ValidationException"


@pytest.mark.parametrize(
    "other",
    [
        {"jobName": "day"}, {"roleArn": "s"}, {"modelId": "sales"}, {"timeoutDurationInHours": 25},
        {"modelInvocationType": "Converse"}, {"tags": [{"key": "a", "value": "b"}]},
        {"inputDataConfig": {"s3InputDataConfig": {"s3Uri": "s3://in/other.jsonl"}}},
        {"outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://in/elsewhere"}}},
    ],
    ids=lambda other: min(other),
)  # fmt: skip
def test_a_request_token_with_other_parameters_is_a_conflict(
    store: Store, bedrock: BedrockRoutes, other: dict[str, Any]
) -> None:
    assert create(bedrock, clientRequestToken="token-1")[0] == ""
    name, told = create(bedrock, clientRequestToken="token-1", **other)
    assert (name, "token-1" in told) == ("ConflictException", True)
    assert len(Batches(store).list()) == 1


@pytest.mark.parametrize("uri", ["s3://in/a\0.jsonl", "s3://in/a\ud800.jsonl", "s3://i\0/a.jsonl"])
def test_a_place_that_no_file_can_have_is_refused(store: Store, uri: str) -> None:
    routes = BedrockRoutes(store, BatchConfig(buckets={"in": "in"}), at_once)
    asked_in = JOB | {"inputDataConfig": {"s3InputDataConfig": {"s3Uri": uri}}}
    asked_out = JOB | {"outputDataConfig": {"s3OutputDataConfig": {"s3Uri": uri}}}
    for asked in (asked_in, asked_out):
        status, said = ask(routes, "POST", "/model-invocation-job", json.dumps(asked).encode())
        assert status == 400, said
