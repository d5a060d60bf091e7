"""The real `openai` client, sync and async, against the gateway behind uvicorn on loopback."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest
import uvicorn

from espalier.core.config import GatewayConfig, PriceConfig, ServeConfig
from espalier.core.errors import RateLimited
from espalier.core.ports import ChatProvider, ChatRequest, Delta
from espalier.core.types import Message, SamplingSpec
from espalier.gateway.app import Gateway
from espalier.gateway.assembly import open_gateway
from espalier.gateway.route import Target
from espalier.nn.base import load_base
from espalier.serve.engine import Engine
from espalier.store.store import Store, open_store
from espalier.store.workspace import init_workspace
from espalier.testing.provider import StrictProvider
from espalier.testing.resolver import FixedResolver
from espalier.testing.tiny import make_tiny_base

BASE = "builtin:seedling"
TOKEN_NUSD = 1000
QUESTION: Any = [{"role": "user", "content": "one two three"}]


class Server:
    """A gateway over a provider, and keys for its clients."""

    def __init__(self, store: Store, provider: ChatProvider, resolver: FixedResolver) -> None:
        self.store = store
        config = GatewayConfig(prices={"*": PriceConfig(prompt="1", completion="1")}, requests_per_minute=1000)
        self.gateway: Gateway = open_gateway(store, provider, resolver, config)
        self.url = ""

    def new_secret(self, budget_tokens: int = 1000) -> str:
        return self.gateway.keys.create("test", budget_nusd=budget_tokens * TOKEN_NUSD).secret

    def client(self, secret: str = "", **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url, api_key=secret or self.new_secret(), max_retries=0, **options)

    def async_client(self, secret: str = "") -> openai.AsyncOpenAI:
        # By default it gives up connecting after 5 seconds; a hundred of it at once need longer on a busy machine.
        return openai.AsyncOpenAI(base_url=self.url, api_key=secret or self.new_secret(), max_retries=0, timeout=120)

    def usage(self) -> list[tuple[str, int, int]]:
        rows = self.store.ledger.list(kind="usage")
        return [(row.detail["finish"], row.prompt_tokens, row.completion_tokens) for row in rows]


@contextmanager
def serving(folder: Path, provider: ChatProvider, resolver: FixedResolver) -> Iterator[Server]:
    """A server on a free port of loopback, in a thread."""
    store = open_store(init_workspace(folder))
    server = Server(store, provider, resolver)
    running = uvicorn.Server(uvicorn.Config(server.gateway, port=0, log_level="warning", ws="none", lifespan="on"))
    thread = threading.Thread(target=running.run)
    thread.start()
    wait_until(lambda: running.started)
    server.url = f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        running.should_exit = True
        thread.join()
        store.close()


@pytest.fixture
def provider() -> StrictProvider:
    return StrictProvider()


@pytest.fixture
def server(tmp_path: Path, provider: StrictProvider) -> Iterator[Server]:
    target = Target("model:support@v1", BASE, "a" * 64, 64, SamplingSpec(max_tokens=20))
    resolver = FixedResolver({"support@production": target}, {BASE: Target(BASE, BASE, "", 64)})
    with serving(tmp_path, provider, resolver) as server:
        yield server


def wait_until(holds: Callable[[], object]) -> None:
    """Wait for the server's side of something; the test's own time limit ends it."""
    while not holds():
        time.sleep(0.005)


def test_a_whole_answer(server: Server) -> None:
    with server.client() as client:
        answer = client.chat.completions.create(model="support", messages=QUESTION, max_tokens=5)
    assert answer.choices[0].message.content == "three two one"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "model:support@v1"
    assert answer.usage is not None and answer.usage.total_tokens == 9
    assert answer._request_id is not None and answer.id == f"chatcmpl-{answer._request_id}"
    assert server.store.ledger.find(answer._request_id)[-1].model == "model:support@v1"


def test_a_streamed_answer_with_usage(server: Server) -> None:
    with server.client() as client:
        chunks = list(
            client.chat.completions.create(
                model="support", messages=QUESTION, stream=True, stream_options={"include_usage": True}
            )
        )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "three two one"
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 3
    assert server.usage() == [("stop", 6, 3)]


def test_the_client_s_own_stream_accumulator_understands_the_chunks(server: Server) -> None:
    with (
        server.client() as client,
        client.chat.completions.stream(model="support", messages=QUESTION) as stream,
    ):
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "three two one"


def test_a_conversation_may_send_our_answer_back_as_it_came(server: Server, provider: StrictProvider) -> None:
    with server.client() as client:
        first = client.chat.completions.create(model="support", messages=QUESTION)
        turns = [*QUESTION, first.choices[0].message.model_dump(), {"role": "user", "content": "four five"}]
        second = client.chat.completions.create(model="support", messages=turns)
    assert second.choices[0].message.content == "five four"
    (request,) = [r for r in provider.requests.values() if len(r.messages) == 3]
    assert [message.role for message in request.messages] == ["user", "assistant", "user"]


def test_the_async_client_asks_many_at_once_whole_and_streamed(server: Server) -> None:
    async def ask_all() -> list[str]:
        async with server.async_client() as client:

            async def whole(number: int) -> str:
                question = [{"role": "user", "content": f"a {number}"}]
                answer = await client.chat.completions.create(model="support", messages=question)
                return answer.choices[0].message.content or ""

            async def streamed(number: int) -> str:
                question = [{"role": "user", "content": f"a {number}"}]
                stream = await client.chat.completions.create(model="support", messages=question, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            return await asyncio.gather(*(ask(number) for number in range(20) for ask in (whole, streamed)))

    assert asyncio.run(ask_all()) == [f"{number} a" for number in range(20) for _ in range(2)]


def test_models_are_listed_and_shown(server: Server) -> None:
    with server.client() as client:
        assert [model.id for model in client.models.list()] == ["support@production", BASE]
        assert client.models.retrieve(BASE).id == BASE


def test_a_wrong_key_is_an_authentication_error(server: Server) -> None:
    with server.client("esp_" + "a" * 43) as client, pytest.raises(openai.AuthenticationError) as refusal:
        client.chat.completions.create(model="support", messages=QUESTION)
    assert refusal.value.code == "invalid_api_key"


def test_an_unknown_model_is_not_found_with_the_nearest_name(server: Server) -> None:
    with server.client() as client, pytest.raises(openai.NotFoundError, match="did you mean `support`") as refusal:
        client.chat.completions.create(model="suport", messages=QUESTION)
    assert (refusal.value.code, refusal.value.param) == ("model_not_found", "model")


def test_an_unsupported_parameter_is_a_bad_request_naming_it(server: Server) -> None:
    with server.client() as client, pytest.raises(openai.BadRequestError) as refusal:
        client.chat.completions.create(model="support", messages=QUESTION, reasoning_effort="high")
    assert refusal.value.param == "reasoning_effort"


def test_a_spent_budget_is_insufficient_quota_and_the_client_does_not_retry_it(server: Server) -> None:
    sent: list[Any] = []
    with (
        openai.DefaultHttpxClient(event_hooks={"request": [sent.append]}) as http,
        openai.OpenAI(
            base_url=server.url, api_key=server.new_secret(budget_tokens=5), max_retries=5, http_client=http
        ) as client,
        pytest.raises(openai.RateLimitError) as refusal,
    ):
        client.chat.completions.create(model="support", messages=QUESTION)
    assert refusal.value.code == "insufficient_quota"
    assert len(sent) == 1
    # It is counted once it is answered, which the client may have read before.
    wait_until(lambda: 'espalier_requests_total{route="chat",status="429"} 1' in server.gateway.metrics.render())


def test_leaving_a_stream_cancels_the_answer_and_pays_for_what_was_said(
    server: Server, provider: StrictProvider
) -> None:
    provider.gate = asyncio.Event()  # never opened
    with server.client() as client:
        stream = client.chat.completions.create(model="support", messages=QUESTION, stream=True)
        pieces = (chunk.choices[0].delta.content for chunk in stream)
        assert next(piece for piece in pieces if piece) == "three"
        stream.close()
    wait_until(server.usage)
    assert server.usage() == [("cancelled", 6, 1)]
    assert provider.open == set()


def test_a_client_s_timeout_cancels_a_whole_answer(server: Server, provider: StrictProvider) -> None:
    provider.gate = asyncio.Event()  # never opened

    def begin_to_wait(event: str, _: Any) -> None:
        if event.endswith("receive_response_headers.started"):
            wait_until(lambda: provider.held)  # its first word is said, however long that took the machine

    def trace(request: Any) -> None:
        request.extensions["trace"] = begin_to_wait

    patience = openai.Timeout(60, read=0.05)
    with (
        openai.DefaultHttpxClient(event_hooks={"request": [trace]}) as http,
        server.client(timeout=patience, http_client=http) as client,
        pytest.raises(openai.APITimeoutError),
    ):
        client.chat.completions.create(model="support", messages=QUESTION)
    wait_until(server.usage)
    assert server.usage() == [("cancelled", 6, 1)]


def test_a_breakdown_in_mid_stream_reaches_the_client_as_an_error(server: Server, provider: StrictProvider) -> None:
    provider.fail_after = 1
    with server.client() as client:
        stream = client.chat.completions.create(model="support", messages=QUESTION, stream=True)
        with pytest.raises(openai.APIError, match="went wrong inside"):
            list(stream)


def test_a_hundred_clients_at_once_cannot_overdraw_a_budget(server: Server) -> None:
    secret = server.new_secret(budget_tokens=100)  # worst case 26 tokens, real cost 9
    account = server.gateway.keys.list()[0].key.account

    async def ask_all() -> list[str]:
        async with server.async_client(secret) as client:

            async def ask() -> str:
                try:
                    answer = await client.chat.completions.create(model="support", messages=QUESTION)
                except openai.RateLimitError:
                    return ""
                return answer.choices[0].message.content or ""

            return await asyncio.gather(*(ask() for _ in range(100)))

    answered = sum(bool(text) for text in asyncio.run(ask_all()))
    balance = server.store.ledger.balance(account)
    assert 3 <= answered <= 11
    assert (balance.spent_nusd, balance.reserved_nusd) == (answered * 9 * TOKEN_NUSD, 0)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = make_tiny_base(tmp_path_factory.mktemp("tiny"))
    engine = Engine(load_base(f"path:{folder}"), ServeConfig(max_batch=4, max_context_tokens=256)).start()
    yield engine
    engine.stop()


@pytest.fixture
def engine_server(tmp_path: Path, engine: Engine) -> Iterator[Server]:
    target = Target("model:tiny@v1", engine.base.spec, "", engine.context_tokens)
    with serving(tmp_path, engine, FixedResolver({"tiny@production": target}, {})) as server:
        yield server


@pytest.mark.parametrize("stream", [False, True])
def test_the_real_engine_answers_the_client_as_it_answers_itself(
    stream: bool, engine: Engine, engine_server: Server
) -> None:
    questions = ["The quick brown fox", "0123", "Größe?"]
    sampling = SamplingSpec(max_tokens=24)
    expected = engine.generate([[Message("user", question)] for question in questions], sampling)
    assert len({answer.text for answer in expected}) == len(questions), "the tiny base must tell prompts apart"
    with engine_server.client() as client:
        for question, answer in zip(questions, expected, strict=True):
            asked: Any = {"model": "tiny", "messages": [{"role": "user", "content": question}], "max_tokens": 24}
            if stream:
                text = "".join(
                    chunk.choices[0].delta.content or ""
                    for chunk in client.chat.completions.create(**asked, stream=True)
                )
            else:
                completion = client.chat.completions.create(**asked)
                text = completion.choices[0].message.content or ""
                assert completion.usage is not None
                assert completion.usage.completion_tokens == answer.usage.completion_tokens
                assert completion.choices[0].finish_reason == answer.finish_reason
            assert text == answer.text
    rows = engine_server.store.ledger.list(kind="usage")
    assert [(row.prompt_tokens, row.completion_tokens) for row in reversed(rows)] == [
        (answer.usage.prompt_tokens, answer.usage.completion_tokens) for answer in expected
    ]


def test_leaving_the_real_engine_frees_its_slots_for_others(engine: Engine, engine_server: Server) -> None:
    question: Any = {"model": "tiny", "messages": [{"role": "user", "content": "fox"}]}
    with engine_server.client() as client:
        for _ in range(6):  # two more than it answers at once
            stream = client.chat.completions.create(**question, max_tokens=200, stream=True)
            next(iter(stream))
            stream.close()
        answer = client.chat.completions.create(**question, max_tokens=3)
    assert answer.usage is not None and answer.usage.completion_tokens <= 3
    wait_until(lambda: len(engine_server.usage()) == 7)
    assert engine_server.store.ledger.reservations() == []


class Refusing(StrictProvider):
    """Refuses the first request, as an engine does whose queue is full."""

    refused = 0

    async def stream(self, request: ChatRequest) -> AsyncIterator[Delta]:
        if not self.refused:
            self.refused += 1
            raise RateLimited("too many are waiting", hint="ask again", retry_after_s=2.5)
        async for delta in super().stream(request):
            yield delta


def test_the_client_waits_as_long_as_it_is_told_and_asks_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target("model:support@v1", BASE, "a" * 64, 64, SamplingSpec(max_tokens=20))
    provider, waited = Refusing(), list[float]()
    with serving(tmp_path, provider, FixedResolver({"support@production": target}, {})) as server:
        # The client's own `time`: a patched `time.sleep` would be that of every thread of this process.
        monkeypatch.setattr("openai._base_client.time", SimpleNamespace(time=time.time, sleep=waited.append))
        with server.client().with_options(max_retries=1) as client:
            answer = client.chat.completions.create(model="support", messages=QUESTION)
        monkeypatch.undo()
    assert answer.choices[0].message.content == "three two one"
    assert (provider.refused, waited) == (1, [2.5])
