"""The real `openai` client over the real engine: forms, tools, several answers, log-probabilities, digests."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pydantic
import pytest
import torch
import uvicorn

from espalier.core.config import GatewayConfig, ServeConfig
from espalier.core.types import SamplingSpec
from espalier.gateway.assembly import open_gateway
from espalier.gateway.route import Target
from espalier.nn.adapters import attach_adapters, save_adapter
from espalier.nn.base import load_base
from espalier.nn.lora import LoraSpec
from espalier.serve.engine import Engine
from espalier.store.store import Store, open_store
from espalier.store.workspace import init_workspace
from espalier.testing.families import make_tool_family
from espalier.testing.resolver import FixedResolver

Served = tuple[str, str, Engine, Store]  # its URL, a key, and what is behind it

ADAPTER = "a" * 64
QUESTION: Any = [{"role": "user", "content": "one two three"}]
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "find",
            "description": "Look for a thing.",
            "parameters": {
                "type": "object",
                "properties": {"thing": {"enum": ["key", "door"]}, "count": {"type": "integer", "maximum": 9}},
                "required": ["thing"],
                "additionalProperties": False,
            },
        },
    }
]


class Finding(pydantic.BaseModel):
    """What an answer is parsed into."""

    model_config = pydantic.ConfigDict(extra="forbid")

    kind: Literal["bug", "question"]
    urgent: bool
    count: int = pydantic.Field(ge=0, le=99)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = make_tool_family("hermes", tmp_path_factory.mktemp("base"))
    base = load_base(f"path:{folder}")
    adapters = attach_adapters(base.model, LoraSpec(rank=4, alpha=8), seed=1)
    with torch.no_grad():
        for parameter in adapters.parameters():
            parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(3))
    save_adapter(folder / "adapter", adapters, base)
    engine = Engine(load_base(f"path:{folder}"), ServeConfig(max_batch=8, max_context_tokens=900))
    engine.load_adapter(ADAPTER, folder / "adapter")
    engine.start()
    spec = engine.base.spec
    defaults = SamplingSpec(max_tokens=120)
    resolver = FixedResolver(
        {"tuned@production": Target("model:tuned@v1", spec, ADAPTER, 900, defaults)},
        {"builtin:plain": Target("builtin:plain", spec, "", 900, defaults)},
    )
    store = open_store(init_workspace(tmp_path_factory.mktemp("project")))
    gateway = open_gateway(store, engine, resolver, GatewayConfig(requests_per_minute=10_000))
    secret = gateway.keys.create("test").secret
    running = uvicorn.Server(uvicorn.Config(gateway, port=0, log_level="warning", ws="none", lifespan="on"))
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.005)
    yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}/v1", secret, engine, store
    running.should_exit = True
    thread.join()
    engine.stop()
    store.close()


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served[0], api_key=served[1], max_retries=0) as client:
        yield client


@pytest.mark.parametrize(("model", "digest"), [("tuned", ADAPTER), ("builtin:plain", None)])
def test_every_response_names_the_adapter_it_was_computed_under(
    client: openai.OpenAI, model: str, digest: str | None
) -> None:
    whole = client.chat.completions.with_raw_response.create(model=model, messages=QUESTION, max_tokens=3)
    assert whole.headers["x-espalier-adapter"] == (digest or "base")
    assert whole.parse().system_fingerprint == digest
    streamed = client.chat.completions.with_raw_response.create(
        model=model, messages=QUESTION, max_tokens=3, stream=True
    )
    assert streamed.headers["x-espalier-adapter"] == (digest or "base")
    assert {chunk.system_fingerprint for chunk in streamed.parse()} == {digest}


def test_an_answer_of_another_adapter_than_the_pinned_one_is_refused(
    client: openai.OpenAI, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test above: the digest is compared, and not just said back."""
    make = served[2]._make_ticket

    def mix_up(name: str, prompt: list[int], adapter: str, *rest: Any, **more: Any) -> Any:
        return make(name, prompt, "", *rest, **more)

    monkeypatch.setattr(served[2], "_make_ticket", mix_up)
    with pytest.raises(openai.InternalServerError, match="another adapter"):
        client.chat.completions.create(model="tuned", messages=QUESTION, max_tokens=3)
    with pytest.raises(openai.APIError, match="another adapter"):
        list(client.chat.completions.create(model="tuned", messages=QUESTION, max_tokens=3, stream=True))


@pytest.mark.parametrize("model", ["tuned", "builtin:plain"])
@pytest.mark.parametrize("temperature", [0, 1.2])
def test_pydantic_parse_gives_an_object(client: openai.OpenAI, model: str, temperature: float) -> None:
    answer = client.chat.completions.parse(
        model=model, messages=QUESTION, response_format=Finding, temperature=temperature, seed=3
    )
    found = answer.choices[0].message.parsed
    assert isinstance(found, Finding) and 0 <= found.count <= 99
    assert answer.choices[0].finish_reason == "stop"


def test_a_form_streams_and_the_client_s_accumulator_parses_it(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="tuned", messages=QUESTION, response_format=Finding) as stream:
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Finding)


@pytest.mark.parametrize(
    ("structure", "holds"),
    [
        ({"regex": "[A-Z]{3}-[0-9]{3}"}, lambda text: len(text) == 7 and text[3] == "-"),
        ({"choice": ["yes", "no"]}, lambda text: text in ("yes", "no")),
        ({"grammar": 'start: "a" "b"* "c"'}, lambda text: text.strip("b") in ("ac", "a") or text[0] == "a"),
        (
            {"json": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3}},
            lambda text: len(json.loads(text)) < 4,
        ),
    ],
    ids=["regex", "choice", "grammar", "json"],
)
def test_vllm_s_structured_outputs_are_understood(client: openai.OpenAI, structure: Any, holds: Any) -> None:
    answer = client.chat.completions.create(
        model="tuned", messages=QUESTION, extra_body={"structured_outputs": structure}, temperature=1, seed=2
    )
    assert holds(answer.choices[0].message.content)


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called_its_result_sent_back_and_the_answer_goes_on(client: openai.OpenAI, stream: bool) -> None:
    asked: Any = {"model": "tuned", "messages": QUESTION, "tools": TOOLS, "tool_choice": "required", "seed": 1}
    if stream:
        with client.chat.completions.stream(**asked, temperature=1, parallel_tool_calls=False) as events:
            answer: Any = events.get_final_completion()
    else:
        answer = client.chat.completions.create(**asked, temperature=1, parallel_tool_calls=False)
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content in (None, "")
    (call,) = choice.message.tool_calls
    assert call.function.name == "find" and json.loads(call.function.arguments)["thing"] in ("key", "door")
    turns = [
        *QUESTION,
        choice.message.model_dump(exclude_none=True, exclude={"parsed"}),
        {"role": "tool", "tool_call_id": call.id, "content": "in the hall"},
    ]
    for turn in turns:
        for each in turn.get("tool_calls") or ():
            each["function"].pop("parsed_arguments", None)
            each.pop("index", None)
    then = client.chat.completions.create(model="tuned", messages=turns, tools=TOOLS, tool_choice="none", max_tokens=5)
    assert then.choices[0].message.tool_calls is None and then.choices[0].finish_reason == "length"


def test_a_named_tool_is_called_and_pydantic_reads_its_arguments(client: openai.OpenAI) -> None:
    tool = openai.pydantic_function_tool(Finding)
    choice: Any = {"type": "function", "function": {"name": "Finding"}}
    answer = client.chat.completions.parse(
        model="builtin:plain", messages=QUESTION, tools=[tool], tool_choice=choice, temperature=1, seed=4
    )
    calls = answer.choices[0].message.tool_calls or []
    assert len(calls) == 1
    call = calls[0]
    assert isinstance(call.function.parsed_arguments, Finding)


def test_several_answers_come_whole_and_streamed_and_are_paid_once_for_the_prompt(
    client: openai.OpenAI, served: Served
) -> None:
    asked: Any = {"model": "tuned", "messages": QUESTION, "n": 3, "temperature": 1, "seed": 5, "max_tokens": 8}
    whole = client.chat.completions.create(**asked)
    texts = [choice.message.content for choice in whole.choices]
    assert [choice.index for choice in whole.choices] == [0, 1, 2] and len(set(texts)) == 3
    assert whole.usage is not None and whole.usage.completion_tokens <= 24
    pieces = {0: "", 1: "", 2: ""}
    for chunk in client.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            pieces[choice.index] += choice.delta.content or ""
    assert list(pieces.values()) == texts
    row = served[3].ledger.find(whole.id.removeprefix("chatcmpl-"))[-1]
    assert (row.prompt_tokens, row.completion_tokens) == (whole.usage.prompt_tokens, whole.usage.completion_tokens)
    assert row.detail["sampling"] == {"temperature": 1.0, "seed": 5, "n": 3, "max_tokens": 8}


def test_log_probabilities_come_in_the_client_s_types(client: openai.OpenAI) -> None:
    asked: Any = {"model": "tuned", "messages": QUESTION, "logprobs": True, "top_logprobs": 2, "max_tokens": 6}
    told = client.chat.completions.create(**asked).choices[0]
    assert told.logprobs is not None and told.logprobs.content is not None
    assert bytes(b for token in told.logprobs.content for b in token.bytes or ()).decode(errors="replace") == (
        told.message.content
    )
    assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in told.logprobs.content)
    assert told.logprobs.content[0].logprob == told.logprobs.content[0].top_logprobs[0].logprob, "greedy: the likeliest"
    streamed = [
        token.logprob
        for chunk in client.chat.completions.create(**asked, stream=True)
        for choice in chunk.choices
        for token in (choice.logprobs.content or () if choice.logprobs else ())
    ]
    assert streamed == [token.logprob for token in told.logprobs.content]


def test_what_was_cached_of_a_prompt_is_told(client: openai.OpenAI) -> None:
    for _ in range(2):
        answer = client.chat.completions.create(model="tuned", messages=QUESTION, max_tokens=1)
    assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == answer.usage.prompt_tokens - 1


def test_the_async_client_mixes_everything_at_once(served: Served) -> None:
    async def ask_all() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=served[0], api_key=served[1], max_retries=0, timeout=120) as client:
            create = client.chat.completions.create
            asked: list[Any] = [
                {"n": 2, "temperature": 1},
                {"response_format": {"type": "json_object"}, "max_tokens": 200},
                {"tools": TOOLS, "tool_choice": "required"},
                {"extra_body": {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.2}, "temperature": 0.8},
                {"logit_bias": {"70": 100}, "max_tokens": 4},
                {"frequency_penalty": 1.0, "presence_penalty": 1.0},
            ]
            return await asyncio.gather(
                *(
                    create(model=model, messages=QUESTION, **each)
                    for each in asked
                    for model in ("tuned", "builtin:plain")
                )
            )

    answers = asyncio.run(ask_all())
    assert len(answers) == 12 and len(answers[0].choices) == 2
    assert answers[4].choices[0].message.tool_calls and answers[5].choices[0].message.tool_calls
    assert {answer.system_fingerprint for answer in answers[::2]} == {ADAPTER}


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "objct"}}}},
         "response_format.type"),
        ({"extra_body": {"structured_outputs": {"regex": "(a"}}}, "structured_outputs"),
        ({"logit_bias": {"99999999": 1}}, "logit_bias"),
        ({"tools": TOOLS, "response_format": {"type": "json_object"}}, "response_format"),
    ],
    ids=["schema", "regex", "bias", "both"],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_what_the_model_cannot_follow_is_a_bad_request_that_costs_nothing(
    client: openai.OpenAI, served: Served, asked: Any, param: str, stream: bool
) -> None:
    before = len(served[3].ledger.list())
    with pytest.raises(openai.BadRequestError) as refusal:
        client.chat.completions.create(model="tuned", messages=QUESTION, stream=stream, **asked)
    assert refusal.value.param == param
    assert len(served[3].ledger.list()) == before
