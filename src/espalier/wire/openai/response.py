"""A chat.completion, whole or in SSE chunks: `Completion` and `Delta` -> JSON, and back.

A completion's id is `chatcmpl-` and the request id, so that whoever kept an answer can ask for its trace.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from espalier.core.errors import EspalierError
from espalier.core.ports import Delta
from espalier.core.types import Completion, Generation, Usage
from espalier.core.types.inference import FinishReason
from espalier.wire.openai.failure import decode_error

DONE = b"data: [DONE]\n\n"
_PREFIX = "chatcmpl-"


def completion_id(request_id: str) -> str:
    """`req_1hq...` as `chatcmpl-req_1hq...`."""
    return _PREFIX + request_id


def request_id(completion: str) -> str:
    """The inverse; an id that is a request's already is left as it is."""
    return completion.removeprefix(_PREFIX)


def encode_completion(completion: Completion, created_s: int) -> dict[str, Any]:
    """The body of a whole answer. `model` is the version that answered, as OpenAI's own is a dated snapshot."""
    return {
        "id": completion_id(completion.request),
        "object": "chat.completion",
        "created": created_s,
        "model": completion.resolved,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": completion.generation.text, "refusal": None},
                "logprobs": None,
                "finish_reason": _finish(completion.generation.finish_reason),
            }
        ],
        "usage": encode_usage(completion.generation.usage),
        "system_fingerprint": completion.adapter[:16] or None,
    }


def encode_usage(usage: Usage) -> dict[str, int]:
    """Token counts in OpenAI's shape."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


@dataclass(frozen=True, slots=True)
class ChunkWriter:
    """Writes one answer as server-sent events: `start`, a `text` per delta, `finish`, maybe `usage`, then `DONE`."""

    request: str
    model: str
    created_s: int
    include_usage: bool = False

    def start(self) -> bytes:
        return self._chunk({"role": "assistant", "content": ""})

    def text(self, text: str) -> bytes:
        return self._chunk({"content": text})

    def finish(self, reason: FinishReason) -> bytes:
        return self._chunk({}, _finish(reason))

    def usage(self, usage: Usage) -> bytes:
        """The extra chunk without choices that `stream_options.include_usage` asks for."""
        return self._event([], encode_usage(usage))

    def _chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._event([choice], None)

    def _event(self, choices: list[dict[str, Any]], usage: dict[str, int] | None) -> bytes:
        body: dict[str, Any] = {
            "id": completion_id(self.request),
            "object": "chat.completion.chunk",
            "created": self.created_s,
            "model": self.model,
            "choices": choices,
        }
        if self.include_usage:
            body["usage"] = usage
        # Escaped to ASCII: some clients split events at every line end that Unicode knows, such as U+2028.
        return b"data: " + json.dumps(body).encode() + b"\n\n"


def _finish(reason: FinishReason) -> str:
    return "length" if reason == "length" else "stop"


class _Loose(BaseModel):
    """What others send may hold more than we read."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Said(_Loose):
    content: str | None = None


class _Choice(_Loose):
    message: _Said = _Said()
    delta: _Said = _Said()
    finish_reason: str | None = None


class _Usage(_Loose):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Answer(_Loose):
    id: str = ""
    model: str = ""
    choices: list[_Choice] = Field(default_factory=list)
    usage: _Usage | None = None


def decode_completion(body: bytes) -> tuple[str, str, Generation]:
    """(request id, model that answered, answer) of a whole completion. Raises EspalierError when it is not one."""
    answer = _read(body)
    if not answer.choices or answer.usage is None:
        raise EspalierError("the endpoint's answer is no chat completion")
    choice = answer.choices[0]
    generation = Generation(
        text=choice.message.content or "",
        finish_reason=_reason(choice.finish_reason or "stop"),
        usage=_usage(answer.usage),
    )
    return request_id(answer.id), answer.model, generation


def decode_event(line: bytes) -> Iterator[Delta]:
    """The deltas of one line of an SSE stream: none for comments, blank lines and `[DONE]`.

    Usage may come on a delta of its own, without text. Raises the error that the stream carries.
    """
    data = line.strip().removeprefix(b"data:").strip()
    if not line.startswith(b"data:") or data == b"[DONE]":
        return
    answer = _read(data)
    for choice in answer.choices[:1]:
        text, finish = choice.delta.content or "", choice.finish_reason
        if text or finish:
            yield Delta(text, _reason(finish) if finish else None)
    if answer.usage is not None:
        yield Delta("", usage=_usage(answer.usage))


def _read(body: bytes) -> _Answer:
    try:
        fields = json.loads(body)
        if isinstance(fields, dict) and "error" in fields:
            raise decode_error(500, body)
        return _Answer.model_validate(fields)
    except ValueError:  # not JSON, or not this shape: pydantic's ValidationError is one too
        raise EspalierError("the endpoint's answer is no chat completion") from None


def _reason(finish_reason: str) -> FinishReason:
    return "length" if finish_reason == "length" else "stop"


def _usage(usage: _Usage) -> Usage:
    return Usage(prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens)
