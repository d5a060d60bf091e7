from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from espalier.core import errors
from espalier.core.errors import EspalierError
from espalier.core.ports import Delta
from espalier.core.types import Completion, Generation, TokenLogprob, ToolCall, Usage
from espalier.wire.openai.chunks import DONE, ChunkWriter, EventReader
from espalier.wire.openai.failure import decode_error, encode_error
from espalier.wire.openai.listing import Listing, encode_model, encode_models
from espalier.wire.openai.response import completion_id, decode_completion, encode_completion, request_id

likely = st.builds(TokenLogprob, st.just(-1), st.binary(max_size=4), st.floats(-50, 0))
tokens = st.builds(
    TokenLogprob, st.just(-1), st.binary(max_size=4), st.floats(-50, 0), st.lists(likely, max_size=2).map(tuple)
)
called = st.builds(ToolCall, st.just("call_1"), st.just("find"), st.text(max_size=20))

completions = st.builds(
    Completion,
    request=st.just("req_1"),
    model=st.just("support"),
    resolved=st.just("model:support@v1"),
    adapter=st.sampled_from(["", "a" * 64]),
    generation=st.builds(
        Generation,
        text=st.text(),
        finish_reason=st.sampled_from(["stop", "length", "tool_calls"]),
        usage=st.builds(
            Usage,
            prompt_tokens=st.integers(0, 10**6),
            completion_tokens=st.integers(0, 10**6),
            cached_tokens=st.integers(0, 10**6),
        ),
        logprobs=st.lists(tokens, max_size=3).map(tuple),
        tool_calls=st.lists(called, max_size=2).map(tuple),
    ),
    cost_nusd=st.just(1),
    latency_ms=st.just(1),
)


@given(completions)
def test_a_whole_answer_comes_back_as_it_went_and_is_what_the_client_s_types_say(completion: Completion) -> None:
    body = json.dumps(encode_completion(completion, 1_700_000_000)).encode()
    assert decode_completion(body) == ("req_1", "model:support@v1", completion.generation)
    parsed = ChatCompletion.model_validate_json(body, strict=True)
    assert parsed.model_extra == {}
    assert parsed.usage is not None and parsed.usage.total_tokens == completion.generation.usage.total_tokens


def test_several_answers_are_several_choices_and_their_usage_is_one() -> None:
    def answer(text: str, tokens: int) -> Generation:
        return Generation(
            text=text, finish_reason="stop", usage=Usage(prompt_tokens=9, completion_tokens=tokens, cached_tokens=4)
        )

    completion = Completion(
        request="req_1",
        model="support",
        resolved="model:support@v1",
        adapter="",
        generation=answer("one", 2),
        others=(answer("two", 3), answer("three", 4)),
        cost_nusd=1,
        latency_ms=1,
    )
    parsed = ChatCompletion.model_validate_json(json.dumps(encode_completion(completion, 1)), strict=True)
    assert [(choice.index, choice.message.content) for choice in parsed.choices] == [
        (0, "one"),
        (1, "two"),
        (2, "three"),
    ]
    assert parsed.usage is not None and parsed.usage.prompt_tokens_details is not None
    assert (parsed.usage.prompt_tokens, parsed.usage.completion_tokens, parsed.usage.total_tokens) == (9, 9, 18)
    assert parsed.usage.prompt_tokens_details.cached_tokens == 4


said = st.builds(
    Delta,
    st.text(min_size=1, max_size=9),
    index=st.integers(0, 2),
    logprobs=st.lists(tokens, max_size=2).map(tuple),
)


@given(st.lists(said, max_size=6), st.lists(called, max_size=2), st.booleans())
def test_a_stream_comes_back_as_it_went_and_is_what_the_client_s_types_say(
    pieces: list[Delta], calls: list[ToolCall], with_usage: bool
) -> None:
    writer = ChunkWriter("req_1", "model:support@v1", 1_700_000_000, include_usage=with_usage, fingerprint="a" * 64)
    usage = Usage(prompt_tokens=3, completion_tokens=len(pieces))
    ends = [Delta("", "length"), Delta("", "stop", index=1), Delta("", "tool_calls", index=2, tool_calls=tuple(calls))]
    stream = b"".join(map(writer.write, [*pieces, *ends])) + (writer.usage(usage) if with_usage else b"")
    for event in stream.removesuffix(b"\n\n").split(b"\n\n"):
        assert event.startswith(b"data: ")
        assert len(event.decode().splitlines()) == 1, "no line end of any kind inside an event"
        chunk = ChatCompletionChunk.model_validate_json(event[6:], strict=True)
        assert chunk.model_extra == {} and chunk.system_fingerprint == "a" * 64
    reader = EventReader()
    deltas = [delta for line in (stream + DONE).split(b"\n") for delta in reader.read(line)]
    assert [delta for delta in deltas if delta.text] == pieces
    assert [delta for delta in deltas if delta.finish_reason] == ends
    assert [delta.usage for delta in deltas if delta.usage] == ([usage] if with_usage else [])


def test_a_call_that_comes_in_pieces_is_told_whole() -> None:
    pieces: list[dict[str, object]] = [
        {"index": 0, "id": "call_1", "function": {"name": "find", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a"'}},
        {"index": 1, "id": "call_2", "function": {"name": "open", "arguments": "{"}},
        {"index": 0, "function": {"arguments": ": 1}"}},
        {"index": 1, "function": {"arguments": "}"}},
    ]
    reader = EventReader()
    lines = [{"choices": [{"index": 0, "delta": {"tool_calls": [piece]}}]} for piece in pieces]
    lines.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    deltas = [delta for line in lines for delta in reader.read(b"data: " + json.dumps(line).encode())]
    whole = (ToolCall("call_1", "find", '{"a": 1}'), ToolCall("call_2", "open", "{}"))
    assert deltas == [Delta("", "tool_calls", tool_calls=whole)]


@pytest.mark.parametrize("line", [b"", b": ping", b"event: x", b"data: [DONE]", b"\r", b"id: 3"])
def test_lines_that_carry_no_answer_give_none(line: bytes) -> None:
    assert list(EventReader().read(line)) == []


@pytest.mark.parametrize("line", [b"data: {", b"data: []", b"data: 3", b'data: {"choices": 3}'])
def test_a_line_that_is_no_chunk_is_an_error_in_our_words(line: bytes) -> None:
    with pytest.raises(EspalierError, match="no chat completion"):
        list(EventReader().read(line))


def test_an_error_inside_a_stream_is_raised_as_what_it_was() -> None:
    _, body = encode_error(errors.RateLimited("slow down", hint="wait"))
    with pytest.raises(errors.RateLimited, match="slow down"):
        list(EventReader().read(b"data: " + body))


def test_a_request_and_its_completion_find_each_other() -> None:
    assert request_id(completion_id("req_1")) == "req_1" == request_id("req_1")


@pytest.mark.parametrize("kind", errors.kinds().values(), ids=lambda kind: kind.__name__)
def test_every_error_goes_out_in_openai_s_shape_and_comes_back_as_itself(kind: type[EspalierError]) -> None:
    error = kind("it is wrong", hint="make it right", where="model" if kind is errors.NotFound else "")
    status, body = encode_error(error)
    fault = json.loads(body)["error"]
    assert set(fault) == {"message", "type", "param", "code"}
    assert status == (429 if kind is errors.BudgetExceeded else kind.http_status)
    back = decode_error(status, body)
    parent = errors.InvalidInput if issubclass(kind, errors.InvalidInput) else kind
    assert type(back) is parent and (back.message, back.hint, back.where) == (error.message, error.hint, error.where)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, b"", errors.Unauthenticated),
        (404, b"<html>not here</html>", errors.NotFound),
        (429, b'{"error": "slow down"}', errors.RateLimited),
        (400, b'{"error": {"message": "no", "code": null}}', errors.InvalidInput),
        (503, b"[]", errors.Unavailable),
        (502, b'{"error": {}}', EspalierError),
    ],
)
def test_an_error_in_a_foreign_shape_is_what_its_status_says(
    status: int, body: bytes, kind: type[EspalierError]
) -> None:
    assert type(decode_error(status, body)) is kind


def test_models_are_what_the_client_s_types_say() -> None:
    listings = [Listing("support@production", 1_700_000_000_123), Listing("builtin:seedling")]
    listed = encode_models(listings)
    assert listed["object"] == "list"
    models = [Model.model_validate(model, strict=True) for model in listed["data"]]
    assert [model.id for model in models] == ["support@production", "builtin:seedling"]
    assert (models[0].created, models[0].model_extra) == (1_700_000_000, {})
    assert encode_model(listings[1]) == listed["data"][1]
