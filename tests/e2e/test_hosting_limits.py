"""Limits and bad input against a real `espalier serve`: a clear 4xx in OpenAI's shape each, and it keeps answering."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import psutil
import pytest

from espalier.sdk.client import Client
from espalier.services.context import open_context
from espalier.store.workspace import init_workspace

pytestmark = pytest.mark.slow
BASE = "builtin:seedling"
QUESTION: Any = [{"role": "user", "content": "one two three"}]
_MIB = 1 << 20


@dataclass(frozen=True)
class Reply:
    """What the server said."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """A running `espalier serve`, and how to ask it."""

    def __init__(self, project: Path, url: str, secret: str, process: subprocess.Popen[str]) -> None:
        self.project, self.url, self.secret, self.process = project, url, secret, process

    def post(self, body: Any, **headers: str) -> Reply:
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        own = {"authorization": f"Bearer {self.secret}", "content-type": "application/json"}
        try:
            connection.request("POST", "/v1/chat/completions", content, {**own, **headers})
            reply = connection.getresponse()
            return Reply(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())
        finally:
            connection.close()

    def ask(self, **fields: Any) -> Reply:
        return self.post({"model": BASE, "messages": QUESTION, "max_tokens": 3, **fields})

    def memory_bytes(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    project = init_workspace(tmp_path_factory.mktemp("limits")).root
    with Client(project, actor="ada") as owner:
        secret = owner.keys.create(role="admin").secret
    settings = ["serve.port=0", "serve.worker=false", "serve.web=false", "serve.threads=1", "serve.max_batch=4",
                "gateway.reader_patience_s=1", "gateway.requests_per_minute=10000"]  # fmt: skip
    words = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "espalier.cli.main", "serve", "--json", *words, "-w", str(project)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ESPALIER_")}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Server(project, json.loads(process.stdout.readline())["url"], secret, process)
        process.terminate()
        assert process.wait(240) == 0, "it stops in order after all that"


@pytest.fixture(autouse=True)
def _keeps_serving(server: Server) -> Iterator[None]:
    yield
    answer = server.ask()
    assert answer.status == 200 and answer.json()["usage"]["completion_tokens"] <= 3


def fault_of(reply: Reply, status: int = 400) -> dict[str, Any]:
    assert reply.status == status, reply.body[:300]
    assert reply.headers["content-type"] == "application/json" and reply.headers["x-request-id"]
    fault: dict[str, Any] = reply.json()["error"]
    assert set(fault) == {"message", "type", "param", "code"}
    assert fault["message"] and len(fault["message"]) < 1000
    return fault


def test_a_prompt_over_the_context_says_how_long_it_is_and_how_much_fits(server: Server) -> None:
    fault = fault_of(server.ask(messages=[{"role": "user", "content": "word " * 5000}]))
    assert fault["param"] == "messages" and "1024" in fault["message"]
    assert fault["type"] == "invalid_request_error"


def test_an_unknown_model_is_told_with_the_nearest_name(server: Server) -> None:
    fault = fault_of(server.ask(model="builtin:seedlin"), 404)
    assert fault["code"] == "model_not_found" and f"did you mean `{BASE}`" in fault["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": -0.5}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"stop": ["never"] * 100_000}, "stop"),
        ({"n": 1_000_000}, "n"),
        ({"n": -1}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"logit_bias": {"99999999": 1}}, "logit_bias"),
        ({"logit_bias": {str(id): 1 for id in range(5000)}}, "logit_bias"),
        ({"logprobs": True, "top_logprobs": 1000}, "top_logprobs"),
        ({"presence_penalty": 99}, "presence_penalty"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "objct"}}}},
         "response_format.type"),
        ({"response_format": {"type": "json_schema", "json_schema": {
            "name": "x", "schema": {"properties": {f"p{i}": {"type": "string"} for i in range(20_000)}}}}},
         "response_format"),
        ({"structured_outputs": {"regex": "(" * 30_000}}, "structured_outputs"),
        ({"structured_outputs": {"grammar": "start: ("}}, "structured_outputs"),
        ({"tools": [{"type": "function", "function": {"name": "find"}}]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": f"f{i}"}} for i in range(1000)]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "<|im_end|>"}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages[0].tool_call_id"),
        ({"temprature": 1}, "temprature"),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_a_setting_that_cannot_be_is_refused_by_name(
    server: Server, fields: dict[str, Any], param: str, stream: bool
) -> None:
    assert fault_of(server.ask(**fields, stream=stream))["param"] == param


def test_a_body_of_fifty_megabytes_is_refused_and_takes_no_memory(server: Server) -> None:
    before = server.memory_bytes()
    fault = fault_of(server.post(b'{"model": "' + b"x" * (50 * _MIB) + b'"}'))
    assert "larger than" in fault["message"]
    assert server.memory_bytes() - before < 30 * _MIB


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 500_000, b'{"model": NaN}'])
def test_a_body_that_is_no_request_is_refused(server: Server, body: bytes) -> None:
    assert fault_of(server.post(body))["type"] == "invalid_request_error"


def test_a_wrong_key_is_refused_before_the_body_is_looked_at(server: Server) -> None:
    assert fault_of(server.post(b"{", authorization="Bearer esp_wrong"), 401)["code"] == "invalid_api_key"


def open_and_never_read(server: Server, fields: dict[str, Any]) -> socket.socket:
    """A client with a small window that asks and then takes nothing."""
    parts = urlsplit(server.url)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((parts.hostname, parts.port))
    body = json.dumps({"model": BASE, "messages": QUESTION, "stream": True, **fields}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.secret}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    client.sendall(head.encode() + body)
    return client


def test_a_client_that_never_reads_is_left_and_its_slots_go_to_others(server: Server) -> None:
    """More answers than the engine has slots, several times more to say than the kernel's buffers hold (about 5 MB)."""
    server.ask()
    before = server.memory_bytes()
    with_all = {"n": 16, "max_tokens": 900, "logprobs": True, "top_logprobs": 20, "temperature": 1, "ignore_eos": True}
    deaf = [open_and_never_read(server, with_all) for _ in range(2)]
    try:
        answer = server.ask()
        assert answer.status == 200, "others are answered while they hang"
        while len(ended := finishes(server, 16)) < 2:
            assert server.process.poll() is None
            time.sleep(0.2)
        assert ended == ["cancelled"] * 2
        assert server.memory_bytes() - before < 300 * _MIB
    finally:
        for client in deaf:
            client.close()


def finishes(server: Server, n: int) -> list[str]:
    """How requests for so many answers ended, by the ledger."""
    context = open_context(server.project)
    try:
        rows = context.store.ledger.list(kind="usage")
        return [row.detail["finish"] for row in rows if row.detail["sampling"].get("n", 1) == n]
    finally:
        context.close()


def test_clients_that_leave_in_the_middle_leave_nothing_behind(server: Server) -> None:
    # More to say than the kernel's buffers hold: none has ended before its client goes, however late that is.
    much: Any = {"n": 15, "max_tokens": 900, "logprobs": True, "top_logprobs": 20, "extra_body": {"ignore_eos": True}}
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.secret, max_retries=0) as client:
        for _ in range(12):
            stream = client.chat.completions.create(model=BASE, messages=QUESTION, stream=True, **much)
            next(iter(stream))
            stream.close()
    while len(ended := finishes(server, 15)) < 12:
        assert server.process.poll() is None
        time.sleep(0.2)
    assert ended == ["cancelled"] * 12
