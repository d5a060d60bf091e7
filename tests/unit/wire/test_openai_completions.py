"""Text completions with vLLM's extensions: what is asked, and what is read of the stream that comes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from espalier.core.errors import EspalierError, InvalidInput, RateLimited
from espalier.core.types import ResponseFormat, SamplingSpec
from espalier.testing.vllm.schema import CompletionRequest
from espalier.wire.openai.completions import CompletionReader, Step, encode_completion_call

_EVERYTHING = SamplingSpec(
    max_tokens=9, temperature=0.7, top_p=0.9, top_k=5, min_p=0.1, presence_penalty=0.5, frequency_penalty=0.25,
    repetition_penalty=1.2, logit_bias=((7, -3.5),), seed=3, stop=("\n\n",), logprobs=2, n=2,
    format=ResponseFormat(kind="regex", text="[a-z]+"),
)  # fmt: skip


def test_every_way_of_sampling_reaches_a_field_that_vllm_documents() -> None:
    body = encode_completion_call("m", [1, 2], _EVERYTHING, end_ids={9, 4}, priority=1, request="req_1")
    call = CompletionRequest.model_validate_json(json.dumps(body))  # refuses names and types vLLM does not document
    assert (call.prompt, call.max_tokens, call.n, call.seed, call.stops) == ([1, 2], 9, 2, 3, ["\n\n"])
    assert (call.temperature, call.top_p, call.top_k, call.min_p) == (0.7, 0.9, 5, 0.1)
    assert (call.presence_penalty, call.frequency_penalty, call.repetition_penalty) == (0.5, 0.25, 1.2)
    assert (call.logit_bias, call.logprobs, call.stop_token_ids) == ({"7": -3.5}, 2, [4, 9])
    assert call.structured_outputs is not None and call.structured_outputs.regex == "[a-z]+"
    assert (call.priority, call.request_id, call.ignore_eos) == (1, "req_1", False)


def test_what_a_generation_config_could_set_is_always_said() -> None:
    body = encode_completion_call("m", [1], SamplingSpec())
    assert {"temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens"} <= set(body)


def test_ends_are_ignored_all_of_them_or_none() -> None:
    body = encode_completion_call("m", [1], SamplingSpec(ignore_end=True), end_ids={4})
    assert body["ignore_eos"] is True
    assert "stop_token_ids" not in body


@pytest.mark.parametrize(
    ("form", "field"),
    [
        (ResponseFormat(kind="json_object"), {"json_object": True}),
        (ResponseFormat(kind="json_schema", text='{"type": "object"}'), {"json": {"type": "object"}}),
        (ResponseFormat(kind="grammar", text='start: "a"'), {"grammar": 'start: "a"'}),
    ],
)
def test_a_form_is_one_constraint(form: ResponseFormat, field: dict[str, Any]) -> None:
    assert encode_completion_call("m", [1], SamplingSpec(format=form))["structured_outputs"] == field


def test_one_answer_is_asked_for_where_nothing_is_drawn() -> None:
    assert encode_completion_call("m", [1], SamplingSpec(n=4))["n"] == 1


def test_a_bias_the_server_would_clip_is_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        encode_completion_call("m", [1], SamplingSpec(logit_bias=((1, 200.0),)))
    assert caught.value.where == "logit_bias"


def choice(
    *ids: int, finish: str | None = None, index: int = 0, logprobs: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {"index": index, "text": "", "token_ids": list(ids), "logprobs": logprobs, "finish_reason": finish}


def event(*choices: dict[str, Any], usage: tuple[int, int] | None = None, cached: int | None = None) -> bytes:
    body: dict[str, Any] = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": choices}
    if usage is not None:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
        if cached is not None:
            body["usage"]["prompt_tokens_details"] = {"cached_tokens": cached}
    return b"data: " + json.dumps(body).encode()


def read_all(reader: CompletionReader, lines: list[bytes]) -> list[Step]:
    return [step for line in lines for step in reader.read(line)]


def test_the_usage_of_all_comes_after_the_steps_and_ends_the_reading() -> None:
    reader = CompletionReader()
    lines = [event(choice(3), usage=(5, 1)), b"", b": a comment", event(choice(4, 2, finish="stop"), usage=(5, 3))]
    assert read_all(reader, lines) == [Step(0, (3,)), Step(0, (4, 2), (), "stop")]
    assert (reader.model, reader.ended, reader.usage.completion_tokens) == ("m", False, 3)
    assert read_all(reader, [event(usage=(5, 3), cached=4), b"data: [DONE]"]) == []
    assert (reader.usage.prompt_tokens, reader.usage.completion_tokens, reader.usage.cached_tokens) == (5, 3, 4)
    assert reader.ended


def test_the_usage_so_far_is_that_of_all_answers() -> None:
    reader = CompletionReader()
    read_all(reader, [event(choice(3), usage=(5, 1)), event(choice(3, index=1), usage=(5, 1))])
    assert reader.usage.completion_tokens == 2


def test_likeliest_tokens_come_first_and_no_more_than_were_asked() -> None:
    told = {
        "tokens": ["token_id:8"], "token_logprobs": [-2.0], "text_offset": [0],
        "top_logprobs": [{"token_id:8": -2.0, "token_id:3": -0.1, "token_id:4": -0.7}],
    }  # fmt: skip
    (step,) = CompletionReader(top=2).read(event(choice(8, logprobs=told)))
    assert step.told == ((-2.0, [(3, -0.1), (4, -0.7)]),)


_BY_TEXT = {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{"a": -1.0}]}
_OF_OTHERS = {"tokens": [], "token_logprobs": [], "top_logprobs": []}


@pytest.mark.parametrize(
    "line",
    [
        b"data: {",
        b'data: {"choices": 3}',
        event({"index": 0, "text": "a"}),  # no ids
        event(choice(finish="error")),
        event(choice(1, logprobs=_BY_TEXT)),
        event(choice(1, logprobs=_OF_OTHERS)),
    ],
)
def test_a_line_that_breaks_the_contract_is_an_error(line: bytes) -> None:
    with pytest.raises(EspalierError):
        CompletionReader(top=1).read(line)


def test_an_error_within_the_stream_is_raised_as_what_it_is() -> None:
    fault = {"error": {"message": "too busy", "type": "TooManyRequests", "param": None, "code": 429}}
    with pytest.raises(RateLimited, match="too busy"):
        CompletionReader().read(b"data: " + json.dumps(fault).encode())
