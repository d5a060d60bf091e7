"""Bedrock's Converse and its records: what is asked and answered is what its documentation says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.core.errors import InvalidInput, Unavailable
from espalier.core.types import Completion, Generation, ToolCall, Usage
from espalier.wire.batchline import Asked
from espalier.wire.bedrock.converse import decode_converse, encode_converse
from espalier.wire.bedrock.invocation import decode_record, encode_answer, encode_failure, encode_manifest

ASKED: dict[str, Any] = {
    "system": [{"text": "Be brief."}],
    "messages": [
        {"role": "user", "content": [{"text": "one"}, {"text": "two"}]},
        {"role": "assistant", "content": [{"text": "three"}]},
        {"role": "user", "content": [{"text": "four"}]},
    ],
    "inferenceConfig": {"maxTokens": 7, "temperature": 0.5, "topP": 0.9, "stopSequences": ["END"]},
}


def complete(generation: Generation) -> Completion:
    return Completion(
        request="batch_1-0000000", model="m", resolved="m", adapter="", generation=generation, cost_nusd=0, latency_ms=3
    )


def say(text: str, reason: Any = "stop", **more: Any) -> Generation:
    return Generation(
        text=text, finish_reason=reason, usage=Usage(prompt_tokens=4, completion_tokens=2), **more
    )  # fmt: skip


def test_a_converse_body_is_a_call() -> None:
    call = decode_converse(ASKED, "support")
    assert [(turn.role, turn.content) for turn in call.messages] == [
        ("system", "Be brief."), ("user", "one\ntwo"), ("assistant", "three"), ("user", "four"),
    ]  # fmt: skip
    assert (call.model, call.max_tokens, call.temperature, call.top_p, call.stop) == ("support", 7, 0.5, 0.9, ("END",))


def test_tools_are_offered_and_their_calls_and_results_come_back() -> None:
    spec = {"name": "weather", "description": "of a place", "inputSchema": {"json": {"type": "object"}}}
    asked = {
        "messages": [
            {"role": "user", "content": [{"text": "Rain?"}]},
            {
                "role": "assistant",
                "content": [{"toolUse": {"toolUseId": "t1", "name": "weather", "input": {"at": "Ulm"}}}],
            },
            {"role": "user", "content": [{"toolResult": {"toolUseId": "t1", "content": [{"json": {"rain": True}}]}}]},
        ],
        "toolConfig": {"tools": [{"toolSpec": spec}], "toolChoice": {"any": {}}},
    }
    call = decode_converse(asked, "support")
    assert [tool.name for tool in call.tools] == ["weather"]
    assert call.tool_choice == "required"
    assert len(call.messages) == 3


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [7]}, "messages"),
        ({"messages": [{"role": "system", "content": [{"text": "x"}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"image": {}}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": "text"}]}, "content"),
        ({**ASKED, "inferenceConfig": {"maxTokens": -1}}, "max_completion_tokens"),
        ({**ASKED, "inferenceConfig": {"topK": 4}}, "inferenceConfig"),
        ({**ASKED, "guardrailConfig": {}}, "guardrailConfig"),
        ({**ASKED, "system": "text"}, "system"),
        ({**ASKED, "additionalModelRequestFields": {"stream": True}}, "additionalModelRequestFields"),
    ],
)
def test_what_is_wrong_with_a_body_is_named(body: dict[str, Any], where: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        decode_converse(body, "support")
    assert refusal.value.where == where


def test_an_answer_is_a_converse_response() -> None:
    said = encode_converse(complete(say("hi")))
    assert said["output"] == {"message": {"role": "assistant", "content": [{"text": "hi"}]}}
    assert said["stopReason"] == "end_turn"
    assert said["usage"] == {"inputTokens": 4, "outputTokens": 2, "totalTokens": 6}
    assert encode_converse(complete(say("hi", "length")))["stopReason"] == "max_tokens"
    call = ToolCall("t1", "weather", '{"at": "Ulm"}')
    used = encode_converse(complete(say("", "tool_calls", tool_calls=(call,))))
    assert used["stopReason"] == "tool_use"
    assert used["output"]["message"]["content"] == [
        {"toolUse": {"toolUseId": "t1", "name": "weather", "input": {"at": "Ulm"}}}
    ]


def test_a_record_of_either_type_is_a_call_and_comes_back_with_its_input() -> None:
    record = {"recordId": "CALL0000001", "modelInput": ASKED}
    asked = decode_record(json.dumps(record).encode(), 0, "support", "Converse")
    assert asked.call is not None and asked.name == "CALL0000001"
    answer = json.loads(encode_answer(asked, complete(say("hi")), 17, "Converse"))
    assert answer["recordId"] == "CALL0000001" and answer["modelInput"] == ASKED
    assert answer["modelOutput"]["stopReason"] == "end_turn"
    body = {"messages": [{"role": "user", "content": "hello"}], "max_completion_tokens": 5}
    invoked = decode_record(json.dumps({"modelInput": body}).encode(), 4, "support", "InvokeModel")
    assert invoked.call is not None and (invoked.name, invoked.call.model) == ("R0000000005", "support")
    answer = json.loads(encode_answer(invoked, complete(say("hi")), 17, "InvokeModel"))
    assert answer["modelInput"] == body
    assert answer["modelOutput"]["object"] == "chat.completion"


@pytest.mark.parametrize("raw", [b"{", b"7", b"{}", b'{"recordId": "x", "modelInput": []}'])
def test_a_record_that_is_none_says_so_in_place_of_its_output(raw: bytes) -> None:
    asked = decode_record(raw, 0, "support", "Converse")
    assert asked.fault is not None and asked.fault_code
    failure = json.loads(encode_failure(asked, asked.fault.http_status, asked.fault.message))
    assert failure["error"]["errorCode"] == 400 and "modelOutput" not in failure


def test_a_record_may_not_ask_another_model_than_its_job() -> None:
    body = {"model": "other", "messages": [{"role": "user", "content": "hello"}]}
    asked = decode_record(json.dumps({"modelInput": body}).encode(), 0, "support", "InvokeModel")
    assert asked.fault is not None and asked.fault.where == "model"


@given(st.binary(max_size=100), st.sampled_from(["InvokeModel", "Converse"]))
def test_no_record_is_too_odd(raw: bytes, kind: Any) -> None:
    asked = decode_record(raw, 0, "support", kind)
    assert (asked.call is None) != (asked.fault is None)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*ASKED, "role", "content", "text"]), inner)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*ASKED, "toolConfig", "additionalModelRequestFields"]), json_values))
def test_no_body_is_too_odd(body: dict[str, Any]) -> None:
    try:
        call = decode_converse(body, "support")
    except InvalidInput:
        return
    assert call.model == "support"


def test_the_manifest_has_the_six_figures() -> None:
    assert encode_manifest(10, 7, 2, 70, 14, processed=9) == {
        "totalRecordCount": 10,
        "processedRecordCount": 9,
        "successRecordCount": 7,
        "errorRecordCount": 2,
        "inputTokenCount": 70,
        "outputTokenCount": 14,
    }


def test_a_failure_is_an_error_in_place_of_the_output() -> None:
    fault = Unavailable("late")
    failure = json.loads(encode_failure(Asked("x", body={"a": 1}), fault.http_status, fault.message))
    assert failure == {"recordId": "x", "modelInput": {"a": 1}, "error": {"errorCode": 503, "errorMessage": "late"}}


@pytest.mark.parametrize("more", [{"n": 2}, {"logprobs": True}, {"logprobs": True, "top_logprobs": 2}])
def test_what_converse_s_answer_has_no_place_for_is_refused_and_not_paid_for(more: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as refusal:
        decode_converse(ASKED | {"additionalModelRequestFields": more}, "m")
    assert refusal.value.where == "additionalModelRequestFields"
    assert decode_converse(ASKED | {"additionalModelRequestFields": {"n": 1, "seed": 3}}, "m").seed == 3
