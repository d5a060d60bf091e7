"""The gateway driven as an ASGI app, message by message; tests/e2e holds it against the real client."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass, field
from typing import Any

import pytest

from espalier.core.config import GatewayConfig
from espalier.gateway import app
from espalier.gateway.app import Gateway
from espalier.gateway.assembly import open_gateway
from espalier.store.store import Store
from espalier.testing.provider import StrictProvider
from espalier.testing.resolver import FixedResolver

CHAT = "/v1/chat/completions"


@dataclass
class Reply:
    """What an app sent."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        assert set(self.json) == {"error"}
        assert set(self.json["error"]) == {"message", "type", "param", "code"}
        return dict(self.json["error"])


@dataclass
class Client:
    """Calls an ASGI app; it hangs up when `leaving` is set."""

    app: Gateway
    secret: str = ""

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        return asyncio.run(self.acall(method, path, body, headers=headers))

    async def acall(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        leaving: asyncio.Event | None = None,
    ) -> Reply:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"authorization": f"Bearer {self.secret}"} if self.secret else {}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(k.encode(), v.encode("latin-1")) for k, v in {**sent, **(headers or {})}.items()],
        }
        reply, gone, waiting = Reply(), leaving or asyncio.Event(), [data[:10], data[10:]]

        async def receive() -> dict[str, Any]:
            if waiting:
                return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            assert not reply.ended, "nothing may follow the end of a response"
            if message["type"] == "http.response.start":
                assert not reply.status, "a response begins once"
                reply.status = message["status"]
                reply.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            else:
                reply.body += message["body"]
                reply.ended = not message.get("more_body", False)

        await self.app(scope, receive, send)
        return reply


@pytest.fixture
def gateway(store: Store, provider: StrictProvider, resolver: FixedResolver, config: GatewayConfig) -> Gateway:
    return open_gateway(store, provider, resolver, config)


@pytest.fixture
def client(gateway: Gateway) -> Client:
    return Client(gateway, gateway.keys.create("test", budget_nusd=1_000_000).secret)


def ask(**fields: Any) -> dict[str, Any]:
    return {"model": "support", "messages": [{"role": "user", "content": "one two three"}], **fields}


def events(reply: Reply) -> list[Any]:
    lines = reply.body.decode().split("\n\n")
    assert lines.pop() == "" and all(line.startswith("data: ") for line in lines)
    return [line[6:] if line == "data: [DONE]" else json.loads(line[6:]) for line in lines]


def test_a_whole_answer_names_its_request_and_the_version_that_answered(client: Client, store: Store) -> None:
    reply = client.call("POST", CHAT, ask())
    request = reply.headers["x-request-id"]
    assert reply.status == 200
    assert reply.json["id"] == f"chatcmpl-{request}"
    assert reply.json["model"] == reply.headers["x-espalier-model"] == "model:support@v1"
    assert reply.json["choices"][0]["message"]["content"] == "three two one"
    assert reply.json["usage"] == {
        "prompt_tokens": 6,
        "completion_tokens": 3,
        "total_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert [entry.kind for entry in store.ledger.find(request)] == ["reserve", "usage"]


def test_a_stream_is_a_role_then_pieces_then_a_reason_then_usage_then_done(client: Client) -> None:
    reply = client.call("POST", CHAT, ask(stream=True, stream_options={"include_usage": True}))
    assert reply.headers["content-type"].startswith("text/event-stream")
    *chunks, done = events(reply)
    assert done == "[DONE]" and reply.ended
    assert {chunk["id"] for chunk in chunks} == {f"chatcmpl-{reply.headers['x-request-id']}"}
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == "three two one"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
    assert [chunk["usage"] for chunk in chunks] == [None] * (len(chunks) - 1) + [
        {"prompt_tokens": 6, "completion_tokens": 3, "total_tokens": 9, "prompt_tokens_details": {"cached_tokens": 0}}
    ]
    assert chunks[-1]["choices"] == []


def test_a_stream_says_no_usage_unasked(client: Client) -> None:
    *chunks, _ = events(client.call("POST", CHAT, ask(stream=True)))
    assert not any("usage" in chunk for chunk in chunks)


@pytest.mark.parametrize("stream", [False, True])
def test_hanging_up_cancels_the_engine_s_work_and_is_charged_for_what_was_used(
    stream: bool, client: Client, provider: StrictProvider, store: Store
) -> None:
    async def hang_up() -> Reply:
        provider.gate = asyncio.Event()  # never opened: without the hang-up this answer never ends
        leaving = asyncio.Event()
        calling = asyncio.create_task(client.acall("POST", CHAT, ask(stream=stream), leaving=leaving))
        while not provider.held:
            await asyncio.sleep(0.001)
        leaving.set()
        return await calling

    reply = asyncio.run(asyncio.wait_for(hang_up(), 30))
    assert not reply.ended
    assert not provider.open
    (row,) = store.ledger.list(kind="usage")
    assert (row.detail["finish"], row.prompt_tokens, row.completion_tokens) == ("cancelled", 6, 1)
    assert store.ledger.reservations() == []


def test_an_answer_that_takes_too_long_is_cut_off_and_charged(
    store: Store, provider: StrictProvider, resolver: FixedResolver, config: GatewayConfig
) -> None:
    provider._delay_s = 60
    gateway = open_gateway(store, provider, resolver, config.model_copy(update={"request_timeout_s": 0.2}))
    client = Client(gateway, gateway.keys.create("test", budget_nusd=1_000_000).secret)
    reply = client.call("POST", CHAT, ask())
    assert (reply.status, reply.error["code"]) == (503, "unavailable")
    assert not provider.open
    assert [row.prompt_tokens for row in store.ledger.list(kind="usage")] == [6]


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_outlasts_the_server_s_patience_at_its_stop_ends_as_an_error_and_is_charged(
    stream: bool,
    client: Client,
    gateway: Gateway,
    provider: StrictProvider,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app, "_DRAIN_S", 0.0)

    async def stop_while_answering() -> Reply:
        provider.gate = asyncio.Event()
        calling = asyncio.create_task(client.acall("POST", CHAT, ask(stream=stream)))
        while not provider.held:
            await asyncio.sleep(0.001)
        await gateway.stop()
        return await calling

    reply = asyncio.run(stop_while_answering())
    assert reply.ended and b"the server stopped in the middle" in reply.body
    assert reply.status == (200 if stream else 503)
    assert [row.completion_tokens for row in store.ledger.list(kind="usage")] == [1]
    assert store.ledger.reservations() == []


@pytest.mark.parametrize("stream", [False, True])
def test_who_is_cut_off_by_whoever_runs_the_server_is_told_as_well(
    stream: bool, client: Client, provider: StrictProvider, store: Store
) -> None:
    """It cancels what has not ended after a while, or, told to stop twice, at once."""

    async def cut_off() -> Reply:
        provider.gate = asyncio.Event()
        calling = asyncio.create_task(client.acall("POST", CHAT, ask(stream=stream)))
        while not provider.held:
            await asyncio.sleep(0.001)
        calling.cancel()
        return await calling

    reply = asyncio.run(cut_off())
    assert reply.ended and b"the server stopped in the middle" in reply.body
    assert reply.status == (200 if stream else 503)
    assert not provider.open
    assert [row.completion_tokens for row in store.ledger.list(kind="usage")] == [1]
    assert store.ledger.reservations() == []


def test_a_breakdown_before_the_first_piece_is_a_500_that_tells_no_secrets(
    client: Client, provider: StrictProvider
) -> None:
    provider.fail_after = 0
    reply = client.call("POST", CHAT, ask(stream=True))
    assert (reply.status, reply.error["type"]) == (500, "server_error")
    assert "broke down" not in reply.error["message"]
    assert reply.headers["x-request-id"] in reply.error["message"]


def test_a_breakdown_in_mid_stream_ends_the_stream_with_an_error_and_not_with_done(
    client: Client, provider: StrictProvider
) -> None:
    provider.fail_after = 1
    reply = client.call("POST", CHAT, ask(stream=True))
    assert reply.status == 200 and reply.ended
    last = events(reply)[-1]
    assert last["error"]["type"] == "server_error"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", CHAT, b"", 405, "method_not_supported"),
        ("POST", "/v1/models", b"", 405, "method_not_supported"),
        ("POST", "/v1/embeddings", b"{}", 404, "unknown_url"),
        ("GET", "/v1/models/gpt-4o", b"", 404, "model_not_found"),
        ("POST", CHAT, b"{", 400, "invalid_value"),
        ("POST", CHAT, ask(model="gpt-4o"), 404, "model_not_found"),
        ("POST", CHAT, ask(temperature=9), 400, "invalid_value"),
        ("POST", CHAT, ask(tools=[{}]), 400, "invalid_value"),
        ("POST", CHAT, ask(messages=[{"role": "user", "content": "word " * 70}]), 400, "invalid_value"),
    ],
)
def test_what_is_wrong_is_said_in_openai_s_shape(
    method: str, path: str, body: Any, status: int, code: str, client: Client
) -> None:
    reply = client.call(method, path, body)
    assert (reply.status, reply.error["code"]) == (status, code)
    assert reply.headers["x-request-id"].startswith("req_")


def test_a_spent_budget_is_openai_s_insufficient_quota_and_not_to_be_retried(gateway: Gateway) -> None:
    client = Client(gateway, gateway.keys.create("poor", budget_nusd=1).secret)
    reply = client.call("POST", CHAT, ask())
    assert (reply.status, reply.error["code"]) == (429, "insufficient_quota")
    assert reply.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("authorization", ["", "Bearer ", "Bearer esp_wrong", "Basic abc", "Bearer \xff"])
def test_without_a_valid_key_nothing_is_read_and_nothing_is_told(authorization: str, client: Client) -> None:
    client.secret = ""
    reply = client.call("POST", CHAT, b"{", headers={"authorization": authorization} if authorization else {})
    assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")


def test_no_key_is_needed_where_the_house_says_so_but_a_wrong_one_is_still_wrong(
    store: Store, provider: StrictProvider, resolver: FixedResolver, config: GatewayConfig
) -> None:
    gateway = open_gateway(store, provider, resolver, config.model_copy(update={"require_key": False}))
    assert Client(gateway).call("POST", CHAT, ask()).status == 200
    assert Client(gateway, "esp_wrong").call("POST", CHAT, ask()).status == 401


@pytest.mark.parametrize(("declared", "sent"), [("2000000", 10), ("", 2_000_000), ("10", 2_000_000)])
def test_a_body_over_the_limit_is_refused_whatever_it_says_of_its_size(
    declared: str, sent: int, client: Client
) -> None:
    reply = client.call("POST", CHAT, b"x" * sent, headers={"content-length": declared} if declared else {})
    assert reply.status == 400
    assert "larger than 1048576 bytes" in reply.error["message"]


def test_models_are_listed_as_far_as_the_key_may_ask_them(client: Client, gateway: Gateway) -> None:
    listed = [model["id"] for model in client.call("GET", "/v1/models").json["data"]]
    assert listed == ["support@production", "support@v1", "support@v2", "builtin:seedling"]
    client.secret = gateway.keys.create("seedling only", models=("builtin:*",)).secret
    assert [model["id"] for model in client.call("GET", "/v1/models").json["data"]] == ["builtin:seedling"]
    assert client.call("GET", "/v1/models/builtin:seedling").json["object"] == "model"
    assert client.call("GET", "/v1/models/support@v1").status == 404


def test_no_key_shows_in_any_log_line(
    client: Client, caplog: pytest.LogCaptureFixture, provider: StrictProvider
) -> None:
    caplog.set_level(logging.DEBUG)
    client.call("POST", CHAT, ask())
    client.call("POST", CHAT, ask(temperature=client.secret))
    provider.fail_after = 0
    client.call("POST", CHAT, ask())
    good = client.secret
    client.secret = good[:-2] + "zz"
    client.call("GET", "/v1/models")
    assert "req_" in caplog.text
    assert good[12:] not in caplog.text and client.secret[12:] not in caplog.text


def test_metrics_add_up_and_are_prometheus_text(client: Client, gateway: Gateway) -> None:
    client.call("POST", CHAT, ask())
    client.call("POST", CHAT, ask(stream=True))
    client.call("POST", CHAT, ask(model="nope"))
    lines = client.call("GET", "/metrics").body.decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert values['espalier_requests_total{route="chat",status="200"}'] == "2"
    assert values['espalier_requests_total{route="chat",status="404"}'] == "1"
    assert values['espalier_tokens_total{model="model:support@v1",direction="completion"}'] == "6"
    assert values['espalier_cost_nusd_total{model="model:support@v1"}'] == "18000"
    assert values['espalier_latency_seconds_count{model="model:support@v1"}'] == "2"
    assert values['espalier_latency_seconds_bucket{model="model:support@v1",le="+Inf"}'] == "2"
    assert values["espalier_in_flight"] == "0"


def test_other_paths_and_websockets_reach_the_fallback_untouched(
    store: Store, provider: StrictProvider, resolver: FixedResolver, config: GatewayConfig
) -> None:
    seen = []

    async def fallback(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["type"], scope.get("path")))

    gateway = open_gateway(store, provider, resolver, config, fallback)

    async def call_all() -> None:
        for kind, path in [("http", "/v1/jobs"), ("websocket", "/ws"), ("http", "/v1/chat/completions/x")]:
            await gateway({"type": kind, "path": path, "method": "GET", "headers": []}, None, None)  # type: ignore[arg-type]

    asyncio.run(call_all())
    assert seen == [("http", "/v1/jobs"), ("websocket", "/ws"), ("http", "/v1/chat/completions/x")]


def test_it_starts_after_and_stops_before_its_fallback_and_refuses_while_stopping(
    store: Store, provider: StrictProvider, resolver: FixedResolver, config: GatewayConfig
) -> None:
    order: list[str] = []

    async def fallback(scope: Any, receive: Any, send: Any) -> None:
        order.append((await receive())["type"])
        await send({"type": "lifespan.startup.complete"})
        order.append((await receive())["type"])
        await send({"type": "lifespan.shutdown.complete"})

    gateway = open_gateway(store, provider, resolver, config, fallback)
    secret = gateway.keys.create("test").secret

    async def live() -> Reply:
        inbox: asyncio.Queue[Any] = asyncio.Queue()
        outbox: asyncio.Queue[Any] = asyncio.Queue()
        living = asyncio.create_task(gateway({"type": "lifespan"}, inbox.get, outbox.put))
        await inbox.put({"type": "lifespan.startup"})
        assert (await outbox.get())["type"] == "lifespan.startup.complete"
        await inbox.put({"type": "lifespan.shutdown"})
        await living
        return await Client(gateway, secret).acall("POST", CHAT, ask())

    reply = asyncio.run(live())
    assert order == ["lifespan.startup", "lifespan.shutdown"]
    assert (reply.status, reply.error["code"]) == (503, "unavailable")
    assert list((store.workspace.folder / "gateway").iterdir()) == []
