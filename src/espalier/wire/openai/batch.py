"""OpenAI's Batch API: request lines in, result lines out, and the batch and file objects a client polls.

Shapes: https://platform.openai.com/docs/api-reference/batch and the types of the `openai` package. Knows no engine,
no file and no HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from espalier.core.errors import EspalierError, InvalidInput
from espalier.core.types import Completion, Usage
from espalier.wire.batchline import Asked
from espalier.wire.openai.failure import encode_error
from espalier.wire.openai.request import decode_chat
from espalier.wire.openai.response import encode_completion

CHAT = "/v1/chat/completions"
_LONGEST_NAME = 512
_FIELDS = {"custom_id", "method", "url", "body"}


def decode_line(raw: bytes, model: str = "") -> Asked:
    """A request line; `model` is asked where the body names none. What is wrong with it is told in `fault`."""
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError):
        return _fault("", "invalid_json_line", "this line is not JSON", "write one JSON object a line")
    if not isinstance(fields, dict):
        return _fault("", "invalid_json_line", "this line is not a JSON object", "write one JSON object a line")
    name = fields.get("custom_id")
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME or not _is_text(name):
        message = f"custom_id is not a string of 1 to {_LONGEST_NAME} characters"
        return _fault("", "invalid_custom_id", message, "name each line, differently")
    if fields.get("method") != "POST":
        return _fault(name, "invalid_method", f"method is {fields.get('method')!r:.40}", "the one method is POST")
    if fields.get("url") != CHAT:
        return _fault(name, "invalid_url", f"url is {fields.get('url')!r:.100}", f"the one url is {CHAT}")
    if set(fields) - _FIELDS:
        unknown = min(set(fields) - _FIELDS)
        return _fault(name, "unknown_parameter", f"unknown field {unknown!r:.80}", "custom_id, method, url, body")
    body = fields.get("body")
    if not isinstance(body, dict):
        return _fault(name, "missing_required_parameter", "body is not a JSON object", "put the request in `body`")
    return decode_body(name, {"model": model, **body} if model else body)


def decode_body(name: str, body: dict[str, Any]) -> Asked:
    """A line whose request is a chat completion's body."""
    try:
        call = decode_chat(json.dumps(body).encode())
        if call.stream:
            raise InvalidInput("a batch does not stream", where="stream", hint="leave `stream` out")
    except EspalierError as error:
        return Asked(name, fault=error, body=body)
    return Asked(name, call, body=body)


def encode_answer(id: str, name: str, completion: Completion, created_s: int) -> bytes:
    """The result line of an answered request, without a line end."""
    return _result(id, name, {"status_code": 200, "body": encode_completion(completion, created_s)})


def encode_refusal(id: str, name: str, error: EspalierError) -> bytes:
    """The result line of a request that was refused or failed, as the endpoint itself would have answered it."""
    status, body = encode_error(error)
    return _result(id, name, {"status_code": status, "body": json.loads(body)})


def encode_unanswered(id: str, name: str, code: str, message: str, line: int) -> bytes:
    """The result line of one that was never asked: it is no request, or the batch ended before it. `line` is from 1."""
    fault = {"code": code, "message": message, "line": line}
    return json.dumps({"id": id, "custom_id": name or None, "response": None, "error": fault}).encode()


def read_fault(raw: bytes) -> str:
    """What a result line without an answer says of why."""
    result = json.loads(raw)
    return str((result["error"] or result["response"]["body"]["error"])["message"])


def _result(id: str, name: str, response: dict[str, Any]) -> bytes:
    response = {"status_code": response["status_code"], "request_id": id, "body": response["body"]}
    return json.dumps({"id": id, "custom_id": name, "response": response, "error": None}).encode()


def _fault(name: str, code: str, message: str, hint: str) -> Asked:
    return Asked(name, fault=InvalidInput(message, hint=hint), fault_code=code)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can spell
        return False
    return True


@dataclass(frozen=True, slots=True)
class BatchFields:
    """What a batch object tells. Times are in milliseconds, 0 where it has not happened; ids empty where none is."""

    id: str
    status: str
    input_file: str
    window: str
    created_ms: int
    expires_ms: int
    model: str = ""
    output_file: str = ""
    error_file: str = ""
    total: int = 0
    completed: int = 0
    failed: int = 0
    usage: Usage | None = None
    started_ms: int = 0
    finalizing_ms: int = 0
    cancelling_ms: int = 0
    ended_ms: int = 0
    fault_code: str = ""
    fault: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


def encode_batch(batch: BatchFields) -> dict[str, Any]:
    """The batch object; its times are in seconds there."""
    ended = {name: _seconds(batch.ended_ms) if batch.status == name.removesuffix("_at") else None for name in _ENDS}
    faults = {"object": "list", "data": [{"code": batch.fault_code, "message": batch.fault, "line": None}]}
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": CHAT,
        "model": batch.model or None,
        "errors": faults if batch.fault_code else None,
        "input_file_id": batch.input_file,
        "completion_window": batch.window,
        "status": batch.status,
        "output_file_id": batch.output_file or None,
        "error_file_id": batch.error_file or None,
        "created_at": batch.created_ms // 1000,
        "in_progress_at": _seconds(batch.started_ms),
        "expires_at": _seconds(batch.expires_ms),
        "finalizing_at": _seconds(batch.finalizing_ms),
        "cancelling_at": _seconds(batch.cancelling_ms),
        **ended,
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "usage": _usage(batch.usage) if batch.usage else None,
        "metadata": dict(batch.metadata) or None,
    }


_ENDS = ("completed_at", "failed_at", "expired_at", "cancelled_at")


def encode_file(id: str, name: str, purpose: str, size_bytes: int, created_ms: int) -> dict[str, Any]:
    """A file object."""
    return {
        "id": id, "object": "file", "bytes": size_bytes, "created_at": created_ms // 1000, "expires_at": None,
        "filename": name, "purpose": purpose, "status": "processed", "status_details": None,
    }  # fmt: skip


def encode_page(items: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """A page of a list, as the client's cursors want it."""
    ends = {"first_id": items[0]["id"] if items else None, "last_id": items[-1]["id"] if items else None}
    return {"object": "list", "data": items, **ends, "has_more": has_more}


def _seconds(ms: int) -> int | None:
    return ms // 1000 if ms else None


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.total_tokens,
    }
