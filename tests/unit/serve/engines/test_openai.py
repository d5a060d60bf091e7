"""What is an OpenAI-compatible server's own among engines: names from settings, usage it may not tell, refusals."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from espalier.core.config import EngineConfig, ServeConfig
from espalier.core.errors import InvalidInput, NotFound, RateLimited, Unavailable
from espalier.core.ports import ChatRequest, Delta
from espalier.core.types import Message, SamplingSpec
from espalier.serve.engines.openai import OpenAIEngine
from espalier.serve.engines.plan import EnginePlan
from espalier.testing.contracts.provider import collect, text_of
from espalier.wire.openai.request import decode_chat


class Server:
    """Streams what `say` holds, whatever is asked; keeps what was asked."""

    def __init__(self) -> None:
        self.say: list[dict[str, Any]] = []
        self.status, self.headers = 200, dict[str, str]()
        self.models: Any = {"object": "list", "data": [{"id": "first"}, {"id": "second"}]}
        self.asked: list[dict[str, Any]] = []
        self._loop = asyncio.new_event_loop()
        self._runner = self._loop.run_until_complete(self._start())
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    async def _start(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        app.router.add_get("/v1/models", self._list)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response(self.models)

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.asked.append(json.loads(body))
        if self.status != 200:
            fault = {"error": {"message": "not now", "type": "x", "param": None, "code": None}}
            return web.json_response(fault, status=self.status, headers=self.headers)
        decode_chat(body)  # raises for what OpenAI does not document
        lines = [f"data: {json.dumps({'id': 'c', 'model': 'm', **each})}\n\n" for each in self.say]
        return web.Response(text="".join(lines) + "data: [DONE]\n\n", content_type="text/event-stream")

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def make(server: Server, tmp_path: Path) -> Iterator[Callable[..., OpenAIEngine]]:
    made: list[OpenAIEngine] = []

    def build(url: str | None = None, **options: Any) -> OpenAIEngine:
        config = EngineConfig(kind="openai", url=server.url if url is None else url, options=options)
        engine = OpenAIEngine(EnginePlan("hf:a/b", "hf:a/b", ServeConfig(), config, tmp_path, "serve.engines.hf:a/b"))
        made.append(engine)
        return engine

    yield build
    for engine in made:
        engine.stop()


def piece(text: str, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


def ask(engine: OpenAIEngine, adapter: str = "", **sampling: Any) -> list[Delta]:
    request = ChatRequest(
        "req_1", "", adapter, [Message("user", "hello")], SamplingSpec(**{"max_tokens": 8, **sampling})
    )
    return asyncio.run(asyncio.wait_for(collect(engine, request), 30))


def test_a_server_that_tells_no_usage_is_booked_no_less_than_it_used(
    server: Server, make: Callable[..., OpenAIEngine]
) -> None:
    server.say = [piece("one "), piece("two"), piece("", "stop")]
    deltas = ask(make().start())
    assert text_of(deltas) == "one two"
    used = deltas[-1].usage
    assert used is not None and used.completion_tokens == 2 and used.prompt_tokens >= len("hello")


def test_usage_after_the_end_stands_on_the_last_delta(server: Server, make: Callable[..., OpenAIEngine]) -> None:
    server.say = [
        piece("one"),
        piece("", "length"),
        {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}},
    ]
    last = ask(make().start())[-1]
    assert (last.finish_reason, last.usage and last.usage.prompt_tokens) == ("length", 7)


def test_a_stream_without_an_end_is_unavailable(server: Server, make: Callable[..., OpenAIEngine]) -> None:
    server.say = [piece("one")]
    with pytest.raises(Unavailable, match="before its end"):
        ask(make().start())


def test_only_what_is_not_neutral_is_asked_for(server: Server, make: Callable[..., OpenAIEngine]) -> None:
    server.say = [piece("", "stop")]
    engine = make(length_field="max_completion_tokens").start()
    ask(engine)
    assert set(server.asked[-1]) == {
        "model", "messages", "max_completion_tokens", "temperature", "stream", "stream_options"
    }  # fmt: skip
    ask(engine, top_k=3, stop=("x",), seed=5)
    assert (server.asked[-1]["top_k"], server.asked[-1]["stop"], server.asked[-1]["seed"]) == (3, ["x"], 5)


def test_the_settings_name_the_models(server: Server, make: Callable[..., OpenAIEngine]) -> None:
    server.say = [piece("", "stop")]
    engine = make(model="second", adapters={"a" * 12: "second-a"}).start()
    engine.load_adapter("a" * 64, Path("/nowhere"))
    ask(engine)
    ask(engine, "a" * 64)
    assert [asked["model"] for asked in server.asked] == ["second", "second-a"]
    with pytest.raises(InvalidInput, match="name none") as caught:
        engine.load_adapter("b" * 64, Path("/nowhere"))
    assert caught.value.where == "serve.engines.hf:a/b.options.adapters"


@pytest.mark.parametrize("options", [{"adapters": {"abc": "m"}}, {"adapters": {"support@v1": "m"}}, {"models": "m"}])
def test_settings_that_name_nothing_are_refused(make: Callable[..., OpenAIEngine], options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        make(**options)


def test_a_url_is_needed(make: Callable[..., OpenAIEngine]) -> None:
    with pytest.raises(InvalidInput, match="url"):
        make(url="")


def test_a_model_the_server_lacks_is_named_with_those_it_has(make: Callable[..., OpenAIEngine]) -> None:
    with pytest.raises(NotFound) as caught:
        make(model="third").start()
    assert "first, second" in caught.value.hint


@pytest.mark.parametrize("listing", [[], {"data": 3}, {"data": [{}]}])
def test_what_lists_no_models_is_unavailable(server: Server, make: Callable[..., OpenAIEngine], listing: Any) -> None:
    server.models = listing
    with pytest.raises(Unavailable, match="OpenAI"):
        make().start()


def test_a_busy_server_tells_when_to_ask_again(server: Server, make: Callable[..., OpenAIEngine]) -> None:
    engine = make().start()
    server.status, server.headers = 429, {"Retry-After": "9"}
    with pytest.raises(RateLimited) as caught:
        ask(engine)
    assert caught.value.retry_after_s == 9.0
