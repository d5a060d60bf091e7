"""OpenAI's batch lines and objects: read by us, and by the types of its own client."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Batch, FileObject

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.types import Completion, Generation, Usage
from espalier.wire.openai.batch import (
    CHAT,
    BatchFields,
    decode_line,
    encode_answer,
    encode_batch,
    encode_file,
    encode_page,
    encode_refusal,
    encode_unanswered,
)

BODY = {"model": "support", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
LINE = {"custom_id": "one", "method": "POST", "url": CHAT, "body": BODY}
COMPLETION = Completion(
    request="batch_1-0000000",
    model="support",
    resolved="model:support@v1",
    adapter="a" * 64,
    generation=Generation(text="hi", finish_reason="stop", usage=Usage(prompt_tokens=4, completion_tokens=1)),
    cost_nusd=0,
    latency_ms=3,
)


def test_a_line_is_a_call_under_its_name() -> None:
    asked = decode_line(json.dumps(LINE).encode())
    assert asked.fault is None and asked.call is not None
    assert (asked.name, asked.call.model, asked.call.max_tokens) == ("one", "support", 5)
    assert asked.call.messages[0].content == "hello"


def test_a_model_given_for_the_batch_is_asked_where_a_line_names_none() -> None:
    silent = {**LINE, "body": {"messages": BODY["messages"]}}
    for line, model in ((silent, "house"), (LINE, "support")):
        asked = decode_line(json.dumps(line).encode(), "house")
        assert asked.call is not None and asked.call.model == model
    missing = decode_line(json.dumps(silent).encode())
    assert missing.fault is not None and missing.fault.where == "model"


@pytest.mark.parametrize(
    ("line", "code", "name"),
    [
        (b"{", "invalid_json_line", ""),
        (b"[1]", "invalid_json_line", ""),
        (b"[" * 100_000, "invalid_json_line", ""),
        (b"\xff\xfe", "invalid_json_line", ""),
        ({**LINE, "custom_id": 7}, "invalid_custom_id", ""),
        ({**LINE, "custom_id": ""}, "invalid_custom_id", ""),
        ({**LINE, "custom_id": "x" * 513}, "invalid_custom_id", ""),
        (b'{"custom_id": "\\ud800", "method": "POST"}', "invalid_custom_id", ""),
        ({"method": "POST", "url": CHAT, "body": BODY}, "invalid_custom_id", ""),
        ({**LINE, "method": "GET"}, "invalid_method", "one"),
        ({**LINE, "url": "/v1/embeddings"}, "invalid_url", "one"),
        ({**LINE, "priority": 1}, "unknown_parameter", "one"),
        ({**LINE, "body": "hello"}, "missing_required_parameter", "one"),
    ],
)
def test_a_line_that_is_no_request_says_why(line: Any, code: str, name: str) -> None:
    asked = decode_line(line if isinstance(line, bytes) else json.dumps(line).encode())
    assert (asked.fault_code, asked.name, asked.call) == (code, name, None)
    assert asked.fault is not None and asked.fault.hint


@pytest.mark.parametrize(
    ("change", "where"),
    [({"temperature": -1}, "temperature"), ({"stream": True}, "stream"), ({"nonsense": 1}, "nonsense")],
)
def test_a_request_that_is_wrong_is_refused_as_the_endpoint_would(change: dict[str, Any], where: str) -> None:
    asked = decode_line(json.dumps({**LINE, "body": {**BODY, **change}}).encode())
    assert (asked.name, asked.fault_code, asked.call) == ("one", "", None)
    assert asked.fault is not None and asked.fault.where == where


@given(st.binary(max_size=200))
def test_no_bytes_are_too_odd(raw: bytes) -> None:
    asked = decode_line(raw)
    assert (asked.call is None) != (asked.fault is None)


def test_results_have_the_vendor_s_three_forms() -> None:
    answer = json.loads(encode_answer("id", "one", COMPLETION, 17))
    assert set(answer) == {"id", "custom_id", "response", "error"}
    assert (answer["response"]["status_code"], answer["response"]["request_id"], answer["error"]) == (200, "id", None)
    assert answer["response"]["body"]["choices"][0]["message"]["content"] == "hi"
    assert answer["response"]["body"]["created"] == 17
    refusal = json.loads(encode_refusal("id", "one", NotFound("no model", where="model")))
    assert refusal["response"]["status_code"] == 404 and refusal["error"] is None
    assert refusal["response"]["body"]["error"]["code"] == "model_not_found"
    unanswered = json.loads(encode_unanswered("id", "", "invalid_json_line", "not JSON", 4))
    assert unanswered["response"] is None and unanswered["custom_id"] is None
    assert unanswered["error"] == {"code": "invalid_json_line", "message": "not JSON", "line": 4}


def test_no_result_holds_a_line_end_whatever_was_said() -> None:
    said = Generation(text="a\nb\u2028c\r", finish_reason="stop", usage=Usage(prompt_tokens=1, completion_tokens=1))
    written = encode_answer("id", "na\nme", COMPLETION.model_copy(update={"generation": said}), 1)
    assert len(written.splitlines()) == 1
    assert json.loads(written)["custom_id"] == "na\nme"


@pytest.mark.parametrize("status", ["validating", "in_progress", "finalizing", "cancelling"])
def test_a_batch_under_way_is_the_client_s_batch(status: str) -> None:
    fields = BatchFields("batch_1", status, "file-1", "24h", 1000, 86_401_000, total=3, completed=1, started_ms=2000)
    batch = Batch.model_validate(encode_batch(fields), strict=True)
    assert (batch.status, batch.created_at, batch.expires_at, batch.in_progress_at) == (status, 1, 86_401, 2)
    assert batch.request_counts is not None and batch.request_counts.total == 3
    assert (batch.completed_at, batch.output_file_id, batch.errors) == (None, None, None)


@pytest.mark.parametrize("status", ["completed", "failed", "expired", "cancelled"])
def test_an_ended_batch_says_when_and_only_that(status: str) -> None:
    fields = BatchFields(
        "batch_1", status, "file-1", "24h", 1000, 2000, ended_ms=9000, output_file="file-2",
        usage=Usage(prompt_tokens=2, completion_tokens=1), fault_code="empty" if status == "failed" else "",
    )  # fmt: skip
    batch = Batch.model_validate(encode_batch(fields), strict=True)
    ends = {name: getattr(batch, f"{name}_at") for name in ("completed", "failed", "expired", "cancelled")}
    assert ends == {**dict.fromkeys(ends), status: 9}
    assert batch.usage is not None and batch.usage.total_tokens == 3
    assert (batch.errors is not None) == (status == "failed")


def test_a_file_is_the_client_s_file_and_a_page_has_its_cursors() -> None:
    file = encode_file("file-1", "in.jsonl", "batch", 5, 7000)
    assert FileObject.model_validate(file, strict=True).created_at == 7
    page = encode_page([file, {**file, "id": "file-2"}], has_more=True)
    assert (page["first_id"], page["last_id"], page["has_more"]) == ("file-1", "file-2", True)
    assert encode_page([], has_more=False)["first_id"] is None


def test_a_fault_says_what_to_do_next() -> None:
    refusal = json.loads(encode_refusal("id", "one", InvalidInput("wrong", hint="write it right")))
    assert refusal["response"]["body"]["error"]["message"] == "wrong. Next: write it right"
