"""Batches through the real `openai` client and the real engine on a tiny base; and the same batches from the SDK."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import uvicorn

from espalier.core.config import BatchConfig, GatewayConfig, PriceConfig, ServeConfig
from espalier.core.errors import NotFound
from espalier.core.types import Message, SamplingSpec
from espalier.gateway.assembly import add_batches, open_gateway
from espalier.gateway.route import Target
from espalier.nn.base import load_base
from espalier.sdk.client import Client
from espalier.serve.engine import Engine
from espalier.store.store import open_store
from espalier.store.workspace import init_workspace
from espalier.testing.resolver import FixedResolver
from espalier.testing.tiny import make_tiny_base

TOKEN_NUSD = 1000
MOST_FILE_BYTES = 100_000
MODEL = "tiny@production"
_ENDED = ("completed", "failed", "expired", "cancelled")


class House:
    """A served workspace: its folder, its address, and keys for its clients."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self.folder, self.engine = folder, engine
        self.store = open_store(init_workspace(folder))
        target = Target("model:tiny@v1", engine.base.spec, "", engine.context_tokens)
        resolver = FixedResolver({"tiny@production": target, "tiny@v1": target}, {})
        config = GatewayConfig(prices={"*": PriceConfig(prompt="1", completion="1")})
        self.gateway = open_gateway(self.store, engine, resolver, config)
        batch = BatchConfig(
            max_in_flight=16, sync_every_s=0.02, max_file_bytes=MOST_FILE_BYTES, buckets={"house": "bucket"}
        )  # fmt: skip
        add_batches(self.gateway, self.store, batch, 1 << 20, work=True)
        self.port = 0

    def client(self, budget_tokens: int = 10**6) -> openai.OpenAI:
        secret = self.gateway.keys.create("test", budget_nusd=budget_tokens * TOKEN_NUSD).secret
        return openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key=secret, max_retries=0)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    base = load_base(f"path:{make_tiny_base(tmp_path_factory.mktemp('tiny'))}")
    engine = Engine(base, ServeConfig(max_batch=8, max_context_tokens=256)).start()
    house = House(tmp_path_factory.mktemp("house"), engine)
    running = uvicorn.Server(uvicorn.Config(house.gateway, port=0, log_level="warning", ws="none", lifespan="on"))
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.005)
    house.port = running.servers[0].sockets[0].getsockname()[1]
    yield house
    running.should_exit = True
    thread.join()
    engine.stop()
    house.store.close()


def line(number: int, **more: Any) -> dict[str, Any]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": f"Say {number}"}], "max_tokens": 8, **more}
    return {"custom_id": f"line-{number:03d}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def jsonl(lines: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in lines)


def upload(client: openai.OpenAI, data: bytes) -> str:
    return client.files.create(file=("asked.jsonl", data), purpose="batch").id


def run_batch(client: openai.OpenAI, data: bytes, **more: Any) -> Any:
    batch = client.batches.create(
        input_file_id=upload(client, data), endpoint="/v1/chat/completions", completion_window="24h", **more
    )
    while batch.status not in _ENDED:
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)
    return batch


def test_the_client_uploads_waits_and_fetches_what_the_engine_itself_says(house: House) -> None:
    lines = [line(number) for number in range(24)] + [line(99, temperature=-1)]
    with house.client() as client:
        batch = run_batch(client, jsonl(lines), metadata={"team": "support"})
        assert (batch.status, batch.metadata) == ("completed", {"team": "support"})
        assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (25, 24, 1)
        assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at < batch.expires_at
        results = [json.loads(raw) for raw in client.files.content(batch.output_file_id).text.splitlines()]
        (failure,) = [json.loads(raw) for raw in client.files.content(batch.error_file_id).text.splitlines()]
        produced = client.files.retrieve(batch.output_file_id)
        assert (produced.purpose, produced.filename) == ("batch_output", f"{batch.id}_output.jsonl")
    assert [result["custom_id"] for result in results] == [f"line-{number:03d}" for number in range(24)]
    expected = house.engine.generate(
        [[Message("user", f"Say {number}")] for number in range(24)], SamplingSpec(max_tokens=8)
    )
    bodies = [result["response"]["body"] for result in results]
    assert [body["choices"][0]["message"]["content"] for body in bodies] == [answer.text for answer in expected]
    assert [body["usage"]["completion_tokens"] for body in bodies] == [a.usage.completion_tokens for a in expected]
    assert batch.usage.output_tokens == sum(answer.usage.completion_tokens for answer in expected)
    assert failure["custom_id"] == "line-099"
    assert failure["response"]["body"]["error"]["param"] == "temperature"
    rows = [row for row in house.store.ledger.list(kind="usage", limit=1000) if row.request.startswith(batch.id)]
    assert len(rows) == 24
    assert {row.detail["lane"] for row in rows} == {"batch"}
    for body in bodies:  # every answer can be traced like any other
        assert openai.types.chat.ChatCompletion.model_validate(body).id.startswith(f"chatcmpl-{batch.id}-")


def test_another_key_s_files_and_batches_do_not_exist(house: House) -> None:
    with house.client() as owner, house.client() as other:
        batch = run_batch(owner, jsonl([line(1)]))
        for call in (
            lambda: other.files.retrieve(batch.input_file_id),
            lambda: other.files.content(batch.output_file_id),
            lambda: other.files.delete(batch.input_file_id),
            lambda: other.batches.retrieve(batch.id),
            lambda: other.batches.cancel(batch.id),
            lambda: other.batches.create(
                input_file_id=batch.input_file_id, endpoint="/v1/chat/completions", completion_window="24h"
            ),
        ):
            with pytest.raises(openai.NotFoundError):
                call()
        assert list(other.files.list()) == [] and list(other.batches.list()) == []
        assert len(list(owner.files.list())) == 2


def test_lists_are_paged_by_the_client_s_cursors(house: House) -> None:
    with house.client() as client:
        ids = [upload(client, jsonl([line(number)])) for number in range(5)]
        assert [file.id for file in client.files.list(limit=2)] == ids[::-1]
        made = [
            client.batches.create(input_file_id=id, endpoint="/v1/chat/completions", completion_window="1h").id
            for id in ids[:3]
        ]
        assert [batch.id for batch in client.batches.list(limit=1)] == made[::-1]
        # The batches' results arrive meanwhile: files of another purpose, which must not shorten a page.
        assert [file.id for file in client.files.list(limit=1, purpose="batch", order="asc")] == ids


def test_a_deleted_file_is_gone_and_the_batch_that_read_it_is_not(house: House) -> None:
    with house.client() as client:
        id = upload(client, jsonl([line(1)]))
        batch = client.batches.create(input_file_id=id, endpoint="/v1/chat/completions", completion_window="24h")
        assert client.files.delete(id).deleted
        with pytest.raises(openai.NotFoundError):
            client.files.retrieve(id)
        while batch.status != "completed":
            time.sleep(0.05)
            batch = client.batches.retrieve(batch.id)


def test_a_cancelled_batch_hands_over_what_is_done(house: House) -> None:
    # A few short ones, and then so much that no machine is done with it before it is cancelled.
    lines = [line(number) if number < 16 else line(number, max_tokens=200, ignore_eos=True) for number in range(300)]
    with house.client() as client:
        id = upload(client, jsonl(lines))
        batch = client.batches.create(input_file_id=id, endpoint="/v1/chat/completions", completion_window="24h")
        while not batch.request_counts or batch.request_counts.completed < 5:
            time.sleep(0.01)
            batch = client.batches.retrieve(batch.id)
        assert client.batches.cancel(batch.id).status == "cancelling"
        while batch.status != "cancelled":
            time.sleep(0.05)
            batch = client.batches.retrieve(batch.id)
        answers = client.files.content(batch.output_file_id).text.splitlines()
        failures = client.files.content(batch.error_file_id).text.splitlines()
        assert len(answers) == batch.request_counts.completed and len(answers) + len(failures) == 300
        with pytest.raises(openai.ConflictError):
            client.batches.cancel(batch.id)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"completion_window": "soon"}, "completion_window"),
        ({"metadata": {"k": "v" * 600}}, "metadata"),
        ({"extra_body": {"nonsense": 1}}, "nonsense"),
        ({"input_file_id": 7}, "input_file_id"),
    ],
)
def test_a_batch_that_makes_no_sense_is_refused_by_name(house: House, fields: dict[str, Any], param: str) -> None:
    with house.client() as client:
        asked: dict[str, Any] = {
            "input_file_id": upload(client, jsonl([line(1)])),
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            **fields,
        }
        with pytest.raises(openai.BadRequestError) as refusal:
            client.batches.create(**asked)
    assert refusal.value.param == param


def test_uploads_are_limited_and_of_one_purpose(house: House) -> None:
    with house.client() as client:
        with pytest.raises(openai.BadRequestError) as refusal:
            upload(client, b"x" * (MOST_FILE_BYTES + 1))
        assert "larger than" in refusal.value.message
        with pytest.raises(openai.BadRequestError) as refusal:
            client.files.create(file=("a", b"x"), purpose="vision")
        assert refusal.value.param == "purpose"
        edge = client.files.create(file=("../../evil.jsonl", b"x" * MOST_FILE_BYTES), purpose="batch")
        assert (edge.bytes, edge.filename) == (MOST_FILE_BYTES, "evil.jsonl")
        assert client.files.content(edge.id).read() == b"x" * MOST_FILE_BYTES
    while list((house.store.workspace.folder / "uploads").iterdir()):  # the last goes after the client has its bytes
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", b"no boundary"),
        ("multipart/form-data; boundary=x", b"nonsense"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--x--\r\n',
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\ncut',
        ),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"A: " + b"b" * 100_000 + b"\r\n\r\n"),
    ],
)
def test_a_form_that_is_none_is_a_bad_request(house: House, kind: str, body: bytes) -> None:
    with house.client() as client:
        connection = http.client.HTTPConnection("127.0.0.1", house.port, timeout=240)
        headers = {"Authorization": f"Bearer {client.api_key}", "Content-Type": kind}
        connection.request("POST", "/v1/files", body, headers)
        reply = connection.getresponse()
        told = json.loads(reply.read())
        connection.close()
    assert (reply.status, told["error"]["type"]) == (400, "invalid_request_error")


def test_without_a_key_nothing_is_told(house: House) -> None:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{house.port}/v1", api_key="esp_none", max_retries=0) as client:
        for call in (client.files.list, client.batches.list, lambda: client.files.content("file-x")):
            with pytest.raises(openai.AuthenticationError):
                call()


def test_the_sdk_s_batch_is_answered_by_the_server_and_its_results_are_the_client_s(house: House) -> None:
    asked = house.folder / "asked.jsonl"
    asked.write_bytes(jsonl([line(number) for number in range(6)]))
    with Client(house.folder, actor="ada") as client:
        events = list(client.call("batches.run", file="asked.jsonl"))
        assert (events[0].kind, events[-1].kind) == ("log", "batch.finished")
        assert events[-1].data["completed"] == 6
        written = (house.folder / "asked.out.jsonl").read_bytes()
        assert [json.loads(raw)["custom_id"] for raw in written.splitlines()] == [f"line-{n:03d}" for n in range(6)]
        newest: Any = client.batches.list(limit=1)[0]
        assert (newest.status, newest.total) == ("completed", 6)
        told: Any = client.call("batches.results", id=newest.id, output="again.jsonl")
        assert Path(told.output).read_bytes() == written
        again = list(client.call("batches.run", file="asked.jsonl"))  # it was handed over: this is another batch
        assert again[0].data["message"].startswith("batch batch_") and newest.id not in again[0].data["message"]
        with pytest.raises(NotFound):
            client.call("batches.create", file="absent.jsonl")
        with pytest.raises(NotFound):
            client.call("batches.show", id="batch_absent")


def test_a_run_that_ended_before_it_handed_over_does_not_ask_again(house: House) -> None:
    asked = house.folder / "begun.jsonl"
    asked.write_bytes(jsonl([line(number) for number in range(5)]))
    with Client(house.folder, actor="ada") as client:
        begun = client.call("batches.create", file="begun.jsonl")
        while client.call("batches.show", id=begun.id).status != "completed":
            time.sleep(0.05)
        while any(batch.status not in _ENDED for batch in client.batches.list(limit=100)):
            time.sleep(0.05)  # those of the tests before
        rows = len(house.store.ledger.list(kind="usage", limit=10_000))
        events = list(client.call("batches.run", file="begun.jsonl"))
        assert events[0].data["message"] == f"going on with {begun.id}"
        assert len(house.store.ledger.list(kind="usage", limit=10_000)) == rows


def test_converse_records_come_back_with_their_manifest(house: House) -> None:
    records = [
        {"recordId": f"R{n}", "modelInput": {"messages": [{"role": "user", "content": [{"text": f"Say {n}"}]}]}}
        for n in range(4)
    ]
    (house.folder / "records.jsonl").write_bytes(jsonl(records))
    with Client(house.folder, actor="ada") as client:
        fields = {"file": "records.jsonl", "model": MODEL, "shape": "converse", "output": "converse/records.out"}
        finished = list(client.call("batches.run", **fields))[-1]
    assert finished.data["completed"] == 4
    output = [json.loads(raw) for raw in (house.folder / "converse" / "records.out").read_bytes().splitlines()]
    assert [record["recordId"] for record in output] == ["R0", "R1", "R2", "R3"]
    assert all(record["modelOutput"]["output"]["message"]["content"][0]["text"] for record in output)
    manifest = json.loads((house.folder / "converse" / "manifest.json.out").read_bytes())
    assert manifest["successRecordCount"] == manifest["totalRecordCount"] == 4


@pytest.fixture
def bedrock(house: House) -> Any:
    """boto3's own client. It sends a bearer token over TLS only, so the header is put in by hand here."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    secret = house.gateway.keys.create("bedrock", budget_nusd=10**9).secret
    client = boto3.client(
        "bedrock",
        endpoint_url=f"http://127.0.0.1:{house.port}",
        region_name="local",
        config=Config(signature_version=UNSIGNED, retries={"max_attempts": 0}),
    )
    client.meta.events.register(
        "before-send.bedrock.*", lambda request, **_: request.headers.update(Authorization=f"Bearer {secret}")
    )
    return client


def job(source: str, **more: Any) -> dict[str, Any]:
    return {
        "jobName": "nightly",
        "roleArn": "arn:aws:iam::000000000000:role/none",
        "modelId": MODEL,
        "modelInvocationType": "Converse",
        "inputDataConfig": {"s3InputDataConfig": {"s3Uri": source}},
        "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://house/out/"}},
        **more,
    }


def test_boto3_creates_watches_and_finds_a_job_and_its_output_where_bedrock_puts_it(house: House, bedrock: Any) -> None:
    records = [
        {"recordId": f"R{n}", "modelInput": {"messages": [{"role": "user", "content": [{"text": f"Say {n}"}]}]}}
        for n in range(3)
    ]
    (house.folder / "bucket").mkdir(exist_ok=True)
    (house.folder / "bucket" / "in.jsonl").write_bytes(jsonl([*records, {"recordId": "R3"}]))
    arn = bedrock.create_model_invocation_job(**job("s3://house/in.jsonl", clientRequestToken="once"))["jobArn"]
    assert bedrock.create_model_invocation_job(**job("s3://house/in.jsonl", clientRequestToken="once"))["jobArn"] == arn
    told = bedrock.get_model_invocation_job(jobIdentifier=arn)
    while told["status"] in ("Submitted", "Validating", "InProgress"):
        time.sleep(0.05)
        told = bedrock.get_model_invocation_job(jobIdentifier=arn)
    assert (told["status"], told["jobName"], told["successRecordCount"], told["errorRecordCount"]) == (
        "Completed", "nightly", 3, 1,
    )  # fmt: skip
    assert told["endTime"] >= told["submitTime"]
    (folder,) = (house.folder / "bucket" / "out").iterdir()
    output = [json.loads(raw) for raw in (folder / "in.jsonl.out").read_bytes().splitlines()]
    assert [record["recordId"] for record in output] == ["R0", "R1", "R2", "R0000000004"]
    assert json.loads((folder / "manifest.json.out").read_bytes())["processedRecordCount"] == 4
    (summary,) = bedrock.list_model_invocation_jobs(nameContains="night")["invocationJobSummaries"]
    assert summary["jobArn"] == arn
    with pytest.raises(bedrock.exceptions.ConflictException):
        bedrock.stop_model_invocation_job(jobIdentifier=arn)


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (job("s3://house/absent.jsonl"), "ResourceNotFoundException"),
        (job("s3://house/../../etc/passwd.jsonl"), "AccessDeniedException"),
        (job("s3://house/../.espalier/x.jsonl"), "AccessDeniedException"),
        (job("s3://elsewhere/in.jsonl"), "AccessDeniedException"),
        (job("s3://house/in.csv"), "ValidationException"),
        (job("s3://house/large.jsonl"), "ValidationException"),
    ],
)
def test_a_job_that_cannot_be_is_refused_in_aws_words(
    house: House, bedrock: Any, asked: dict[str, Any], name: str
) -> None:
    (house.folder / "bucket").mkdir(exist_ok=True)
    (house.folder / "bucket" / "large.jsonl").write_bytes(b"x" * (MOST_FILE_BYTES + 1))
    with pytest.raises(bedrock.exceptions.ClientError) as refusal:
        bedrock.create_model_invocation_job(**asked)
    assert refusal.value.response["Error"]["Code"] == name
    with pytest.raises(bedrock.exceptions.ResourceNotFoundException):
        bedrock.get_model_invocation_job(jobIdentifier="absent123456")
