"""A chat.completion as a whole: `Completion` -> JSON, and back. `chunks` speaks of the same in pieces.

A completion's id is `chatcmpl-` and the request id, so that whoever kept an answer can ask for its trace. Its
`system_fingerprint` is the digest of the adapter that it was computed under, null for the bare base.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from espalier.core.errors import EspalierError
from espalier.core.types import Completion, Generation, TokenLogprob, ToolCall, Usage
from espalier.core.types.inference import FinishReason
from espalier.wire.openai.failure import decode_error
from espalier.wire.openai.turns import encode_call

_PREFIX = "chatcmpl-"
_NOT_TOLD = -1  # OpenAI's shape names tokens by their text, not by their id


def completion_id(request_id: str) -> str:
    """`req_1hq...` as `chatcmpl-req_1hq...`."""
    return _PREFIX + request_id


def request_id(completion: str) -> str:
    """The inverse; an id that is a request's already is left as it is."""
    return completion.removeprefix(_PREFIX)


def encode_completion(completion: Completion, created_s: int) -> dict[str, Any]:
    """The body of a whole answer. `model` is the version that answered, as OpenAI's own is a dated snapshot."""
    answers = [completion.generation, *completion.others]
    return {
        "id": completion_id(completion.request),
        "object": "chat.completion",
        "created": created_s,
        "model": completion.resolved,
        "choices": [_encode_choice(index, answer) for index, answer in enumerate(answers)],
        "usage": encode_usage(add_usage([answer.usage for answer in answers])),
        "system_fingerprint": completion.adapter or None,
    }


def add_usage(parts: Sequence[Usage]) -> Usage:
    """What several answers to one prompt used: the prompt is computed once."""
    return Usage(
        prompt_tokens=parts[0].prompt_tokens,
        completion_tokens=sum(part.completion_tokens for part in parts),
        cached_tokens=parts[0].cached_tokens,
    )


def encode_usage(usage: Usage) -> dict[str, Any]:
    """Token counts in OpenAI's shape."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def encode_logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    """A choice's `logprobs`; null where none were told."""
    if not tokens:
        return None
    content = [{**_encode_token(token), "top_logprobs": [_encode_token(top) for top in token.top]} for token in tokens]
    return {"content": content, "refusal": None}


def encode_finish(reason: FinishReason) -> str:
    """Why an answer ended, in OpenAI's words."""
    return reason if reason in ("length", "tool_calls") else "stop"


def _encode_choice(index: int, answer: Generation) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.tool_calls:
        message["content"] = answer.text or None
        message["tool_calls"] = [encode_call(call) for call in answer.tool_calls]
    return {
        "index": index,
        "message": message,
        "logprobs": encode_logprobs(answer.logprobs),
        "finish_reason": encode_finish(answer.finish_reason),
    }


def _encode_token(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.text.decode(errors="replace"), "logprob": token.logprob, "bytes": list(token.text)}


class _Loose(BaseModel):
    """What others send may hold more than we read."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Function(_Loose):
    """The function of a call; in a stream, a piece of it."""

    name: str | None = None
    arguments: str | None = None


class Call(_Loose):
    """A call of a tool; in a stream, a piece of one."""

    index: int | None = None
    id: str | None = None
    function: Function = Function()


class Said(_Loose):
    """What a message, or a piece of one, says."""

    content: str | None = None
    tool_calls: list[Call] | None = None


class _Token(_Loose):
    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[_Token] = Field(default_factory=list)

    def decode(self) -> TokenLogprob:
        text = self.token.encode() if self.bytes is None else bytes(self.bytes)
        return TokenLogprob(_NOT_TOLD, text, self.logprob, tuple(top.decode() for top in self.top_logprobs))


class _Logprobs(_Loose):
    content: list[_Token] | None = None


class Choice(_Loose):
    """One of the answers, whole or a piece."""

    index: int = 0
    message: Said = Said()
    delta: Said = Said()
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None

    def tokens(self) -> tuple[TokenLogprob, ...]:
        """The tokens whose log-probabilities it tells."""
        told = self.logprobs.content if self.logprobs else None
        return tuple(token.decode() for token in told or ())


class _Cached(_Loose):
    cached_tokens: int | None = None


class Used(_Loose):
    """Token counts."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Cached | None = None

    def decode(self) -> Usage:
        cached = self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None
        return Usage(
            prompt_tokens=self.prompt_tokens, completion_tokens=self.completion_tokens, cached_tokens=cached or 0
        )


class Answer(_Loose):
    """A completion, or a chunk of one."""

    id: str = ""
    model: str = ""
    choices: list[Choice] = Field(default_factory=list)
    usage: Used | None = None


def decode_completion(body: bytes) -> tuple[str, str, Generation]:
    """(request id, model that answered, first answer) of a whole completion, its usage being that of all answers.

    Raises EspalierError when it is not one.
    """
    answer = read_answer(body)
    if not answer.choices or answer.usage is None:
        raise EspalierError("the endpoint's answer is no chat completion")
    choice = answer.choices[0]
    calls = tuple(
        ToolCall(call.id or "", call.function.name or "", call.function.arguments or "")
        for call in choice.message.tool_calls or ()
    )
    generation = Generation(
        text=choice.message.content or "",
        finish_reason=decode_finish(choice.finish_reason or "stop"),
        usage=answer.usage.decode(),
        logprobs=choice.tokens(),
        tool_calls=calls,
    )
    return request_id(answer.id), answer.model, generation


def read_answer(body: bytes) -> Answer:
    """A completion or a chunk. Raises the error it carries, EspalierError when it is neither."""
    try:
        fields = json.loads(body)
        if isinstance(fields, dict) and "error" in fields:
            raise decode_error(500, body)
        return Answer.model_validate(fields)
    except ValueError:  # not JSON, or not this shape: pydantic's ValidationError is one too
        raise EspalierError("the endpoint's answer is no chat completion") from None


def decode_finish(finish_reason: str) -> FinishReason:
    """Why an answer ended, in our words."""
    if finish_reason == "length":
        return "length"
    return "tool_calls" if finish_reason == "tool_calls" else "stop"
