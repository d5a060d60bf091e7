from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import completion_create_params

from espalier.core.errors import InvalidInput
from espalier.core.types import Message, ResponseFormat, SamplingSpec, Tool, ToolCall
from espalier.wire.openai.failure import encode_error
from espalier.wire.openai.request import EXTRAS, IGNORED, NEUTRAL, ChatCall, decode_chat, encode_chat

HELLO = {"role": "user", "content": "hello"}


def decode(**fields: Any) -> ChatCall:
    return decode_chat(json.dumps({"model": "m", "messages": [HELLO], **fields}).encode())


def refuse(**fields: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as refusal:
        decode(**fields)
    return refusal.value


CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}

texts = st.text(min_size=1, max_size=40)
calls = st.builds(
    ChatCall,
    model=texts,
    messages=st.lists(
        st.builds(Message, st.sampled_from(["system", "user", "assistant"]), st.text(max_size=40)),
        min_size=1,
        max_size=4,
    ).map(tuple),
    max_tokens=st.none() | st.integers(1, 10**6),
    temperature=st.none() | st.floats(0, 2),
    top_p=st.none() | st.floats(0, 1, exclude_min=True),
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    top_k=st.none() | st.integers(0, 10**6),
    min_p=st.none() | st.floats(0, 1),
    presence_penalty=st.none() | st.floats(-2, 2),
    frequency_penalty=st.none() | st.floats(-2, 2),
    repetition_penalty=st.none() | st.floats(0, 10, exclude_min=True),
    logit_bias=st.none()
    | st.dictionaries(st.integers(0, 10**6), st.floats(-100, 100), min_size=1, max_size=3).map(
        lambda biases: tuple(biases.items())
    ),
    logprobs=st.none() | st.integers(0, 20),
    n=st.none() | st.integers(1, 128),
    ignore_end=st.none() | st.booleans(),
    format=st.none()
    | st.just(ResponseFormat(kind="json_object"))
    | st.just(ResponseFormat(kind="json_schema", text='{"type": "object"}'))
    | st.builds(ResponseFormat, kind=st.sampled_from(["regex", "grammar"]), text=texts),
    tools=st.lists(
        st.builds(
            Tool,
            name=st.sampled_from(["find", "open_1", "a-b"]),
            description=st.text(max_size=20),
            parameters=st.just({"type": "object", "properties": {"a": {"type": "string"}}}),
            strict=st.booleans(),
        ),
        min_size=1,
        max_size=3,
        unique_by=lambda tool: tool.name,
    ).map(tuple),
    tool_choice=st.sampled_from(["none", "auto", "required"]),
    parallel_calls=st.booleans(),
    stop=st.lists(texts, max_size=4).map(tuple),
    stream=st.just(True),
    include_usage=st.booleans(),
    metadata=st.dictionaries(texts, st.text(max_size=40), max_size=4),
)


@given(calls)
def test_what_we_ask_others_is_what_we_would_have_understood(call: ChatCall) -> None:
    assert decode_chat(json.dumps(encode_chat(call)).encode()) == call


def test_a_tool_chosen_by_name_and_no_tools_at_all_come_back_as_they_went() -> None:
    tools = (Tool(name="find", parameters={"type": "object"}), Tool(name="open"))
    for call in (decode().model_copy(update={"tools": tools, "tool_choice": "open"}), decode(tool_choice="none")):
        assert decode_chat(json.dumps(encode_chat(call)).encode()) == call


def test_a_conversation_with_calls_of_tools_comes_back_as_it_went() -> None:
    asked = (ToolCall("call_1", "find", '{"a": 1}'), ToolCall("call_2", "find", "{}"))
    turns = (
        Message("user", "find it"),
        Message("assistant", "", tool_calls=asked),
        Message("tool", "here", tool_call_id="call_1"),
        Message("tool", "there", tool_call_id="call_2"),
        Message("assistant", "It is here."),
    )
    call = decode().model_copy(update={"messages": turns})
    assert decode_chat(json.dumps(encode_chat(call)).encode()) == call


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10)
names = st.sampled_from(
    ["model", "messages", "role", "content", "n", "tools", "function", "name", "type", "response_format", "logit_bias"]
)
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner), max_leaves=12)


@given(st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode()))
def test_whatever_comes_is_understood_or_refused_in_our_words(body: bytes) -> None:
    try:
        decode_chat(body)
    except InvalidInput as refusal:
        assert refusal.message


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"\xff\xfe", b"[" * 100_000, b"null"])
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput, match="the body is not"):
        decode_chat(body)


HALF = "\ud800"  # half a surrogate pair: JSON can spell it, UTF-8 cannot


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user", "content": HALF}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": HALF}]}]},
        {"messages": [{"role": HALF, "content": "x"}]},
        {"stop": HALF},
        {"metadata": {HALF: "x"}},
        {"metadata": {"x": HALF}},
        {"model": HALF},
        {HALF: 1},
    ],
)
def test_text_that_is_no_unicode_is_refused_in_words_that_can_be_sent(fields: dict[str, Any]) -> None:
    status, body = encode_error(refuse(**fields))
    assert status == 400 and json.loads(body.decode())["error"]["message"]


def test_parts_of_text_are_joined_by_lines_and_developer_is_system() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    call = decode(messages=[{"role": "developer", "content": "be brief"}, {"role": "user", "content": parts}])
    assert call.messages == (Message("system", "be brief"), Message("user", "one\ntwo"))


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_both_names_of_the_answer_s_bound_are_understood(name: str) -> None:
    assert decode(**{name: 7}).max_tokens == 7


def test_one_stop_string_is_a_list_of_one() -> None:
    assert decode(stop="END").stop == ("END",)
    assert decode(stop=["a", "b"]).stop == ("a", "b")


def test_null_means_not_said_for_every_parameter() -> None:
    everything = completion_create_params.CompletionCreateParamsBase.__annotations__
    silent = {name: None for name in everything if name not in ("model", "messages")}
    assert decode(**silent, stream=None) == decode()


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in NEUTRAL for value in NEUTRAL[name]])
def test_a_parameter_that_asks_for_nothing_is_left(name: str, value: Any) -> None:
    assert decode(**{name: value}) == decode()


@pytest.mark.parametrize("name", sorted(IGNORED))
def test_a_parameter_that_cannot_change_the_answer_is_left(name: str) -> None:
    assert decode(**{name: "anything"}) == decode()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("functions", [{"name": "f"}]),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "alloy", "format": "wav"}),
        ("prediction", {"type": "content", "content": "x"}),
        ("reasoning_effort", "high"),
        ("verbosity", "low"),
        ("web_search_options", {}),
    ],
)
def test_a_parameter_that_would_change_the_answer_is_refused_by_name(name: str, value: Any) -> None:
    refusal = refuse(**{name: value})
    assert refusal.where == name and "would change the answer" in refusal.message


def test_the_client_s_every_parameter_is_honoured_ignored_or_refused_by_design() -> None:
    """A new version of the client brings new parameters: each must be put in one of the three classes."""
    known = set(get_type_hints(completion_create_params.CompletionCreateParamsBase)) | {"stream"}
    honoured = {
        "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop", "stream",
        "stream_options", "metadata", "user", "safety_identifier", "prompt_cache_key", "tools", "tool_choice", "n",
        "parallel_tool_calls", "response_format", "logprobs", "top_logprobs", "logit_bias", "frequency_penalty",
        "presence_penalty",
    }  # fmt: skip
    assert known - honoured - IGNORED - set(NEUTRAL) == set()
    assert not EXTRAS & known, "OpenAI has a word of its own for it now"


def test_an_unknown_parameter_is_refused_with_the_nearest_name() -> None:
    refusal = refuse(temprature=0.5)
    assert (refusal.where, refusal.hint) == ("temprature", "did you mean `temperature`?")


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"model": ""}, "model"),
        ({"model": 3}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages[0]"),
        ({"messages": [HELLO, {"role": "user", "content": None}]}, "messages[1].content"),
        ({"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": "x"}}, "stream_options.include_usage"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"seed": 2**63}, "seed"),
        ({"temperature": -0.1}, "temperature"),
        ({"stop": ["x"] * 100_000}, "stop"),
        ({"stop": "x" * 1025}, "stop"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": 3}, "logprobs"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"\u00b2": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"presence_penalty": 2.1}, "presence_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"min_p": 1.1}, "min_p"),
        ({"top_k": -2}, "top_k"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "response_format.json_schema.sch"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}}, "structured_outputs"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "auto"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a"}}] * 2}, "tools[1].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a"}}] * 129}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "must"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "a"}}}, "tool_choice"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [CALL]}]}, "messages[0].tool_calls"),
    ],
)
def test_a_wrong_value_is_refused_naming_its_place(fields: dict[str, Any], where: str) -> None:
    assert refuse(**fields).where.startswith(where)


def test_nan_and_infinity_are_no_temperatures() -> None:
    for text in (b"NaN", b"Infinity"):
        with pytest.raises(InvalidInput):
            decode_chat(b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": ' + text + b"}")


def test_an_image_is_refused_as_what_it_is() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}
    refusal = refuse(messages=[{"role": "user", "content": [image]}])
    assert "only text" in refusal.message


def test_sampling_takes_what_was_said_and_else_the_deployment_s() -> None:
    defaults = SamplingSpec(max_tokens=9, temperature=0.3, stop=("END",))
    assert decode().sampling(defaults) == defaults
    said = decode(temperature=0, max_tokens=2, stop="X").sampling(defaults)
    assert (said.temperature, said.max_tokens, said.stop) == (0, 2, ("X",))


SHARED = Path(os.environ.get("ESPALIER_SHARED", Path(__file__).parents[3].parent / "shared"))
SPECIFICATION = SHARED / "data/openai-openapi/openapi.yaml.gz"


@pytest.mark.skipif(not SPECIFICATION.exists(), reason="OpenAI's document is not on this machine")
def test_openai_s_own_examples_are_understood_or_refused_for_what_we_lack() -> None:
    """Every JSON body of the document's curl examples for this endpoint."""
    from ruamel.yaml import YAML

    text = gzip.decompress(SPECIFICATION.read_bytes()).decode()
    start = text.index("\n  /chat/completions:\n")
    end = text.index("\n  /", start + 5)  # the next path: the whole document would take half a minute to parse
    paths = YAML(typ="safe", pure=False).load(text[start:end])
    examples = paths["/chat/completions"]["post"]["x-oaiMeta"]["examples"]
    bodies = [body for example in examples if (body := _curl_body(example["request"]["curl"])) is not None]
    assert len(bodies) >= 4
    understood = 0
    for body in bodies:
        try:
            decode_chat(body)
            understood += 1
        except InvalidInput as refusal:
            assert refusal.where.split("[")[0] in {"messages", "reasoning_effort"}
    assert understood >= 4


def _curl_body(curl: str) -> bytes | None:
    start, end = curl.find("{"), curl.rfind("}")
    try:
        return json.dumps(json.loads(curl[start : end + 1])).encode()
    except ValueError:
        return None


@pytest.mark.parametrize("schema", ["not JSON", "[" * 3000])
def test_a_schema_that_is_no_json_is_refused_where_it_would_be_sent_on(schema: str) -> None:
    call = decode(structured_outputs={"json": schema})
    with pytest.raises(InvalidInput, match="the schema is not JSON"):
        encode_chat(call)
