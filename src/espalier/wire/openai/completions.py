"""Text completions with vLLM's extensions: prompt ids and every way of sampling out, SSE lines in as ids.

The chat template and the tokenizer stay ours: ids are sent and ids are read, never text. Fields and their meaning are
those of vLLM's CompletionRequest (vllm/entrypoints/openai/completion/protocol.py, 0.11 and on); all that a model's
generation_config.json could set otherwise is always said. Knows no network.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from espalier.core.errors import EspalierError, InvalidInput
from espalier.core.types import ResponseFormat, SamplingSpec, Usage
from espalier.core.types.inference import FinishReason
from espalier.wire.openai.failure import decode_error

Told = tuple[float, list[tuple[int, float]]]  # log-probability of a token; the likeliest ids there with theirs

_ID = "token_id:"  # how vLLM writes a token under return_tokens_as_token_ids
_BIAS_MOST = 100.0  # vLLM clips beyond it without a word
_REASONS: dict[str, FinishReason] = {
    "stop": "stop", "length": "length", "tool_calls": "tool_calls", "abort": "cancelled", "error": "error",
    "repetition": "stop",
}  # fmt: skip


def encode_completion_call(
    model: str,
    prompt: Sequence[int],
    sampling: SamplingSpec,
    *,
    end_ids: Iterable[int] = (),
    priority: int = 0,
    request: str = "",
) -> dict[str, Any]:
    """The JSON object that asks `model` to go on from `prompt`, streamed, with the usage so far in every piece.

    end_ids: ids that end an answer besides those the server knows of. priority: lower is earlier; a server without
    priority scheduling takes 0 only. Where nothing is drawn all `n` answers are one, so one is asked for: vLLM refuses
    more. Raises InvalidInput for a logit bias the server would clip.
    """
    if any(abs(bias) > _BIAS_MOST for _, bias in sampling.logit_bias):
        raise InvalidInput(f"a logit bias goes from -{_BIAS_MOST:g} to {_BIAS_MOST:g}", where="logit_bias")
    body: dict[str, Any] = {
        "model": model,
        "prompt": list(prompt),
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "return_token_ids": True,
        "max_tokens": sampling.max_tokens,
        "n": sampling.n if sampling.temperature > 0 else 1,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repetition_penalty": sampling.repetition_penalty,
    }
    optional = {
        "request_id": request or None,
        "priority": priority or None,
        "seed": sampling.seed,
        "stop": list(sampling.stop) or None,
        "logit_bias": {str(id): bias for id, bias in sampling.logit_bias} or None,
        "logprobs": sampling.logprobs,
        "return_tokens_as_token_ids": True if sampling.logprobs is not None else None,
        "ignore_eos": True if sampling.ignore_end else None,
        "stop_token_ids": None if sampling.ignore_end else sorted(end_ids) or None,
        "structured_outputs": _encode_format(sampling.format) if sampling.format else None,
    }
    return body | {name: value for name, value in optional.items() if value is not None}


def _encode_format(form: ResponseFormat) -> dict[str, Any]:
    """vLLM's StructuredOutputsParams (vllm/sampling_params.py): exactly one of these fields."""
    if form.kind == "json_object":
        return {"json_object": True}
    if form.kind == "json_schema":
        schema = json.loads(form.text)
        return {
            "json": schema if isinstance(schema, dict) else {} if schema else {"not": {}}
        }  # true and false are schemas
    return {form.kind: form.text}


class _Loose(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Logprobs(_Loose):
    token_logprobs: list[float | None] = []
    top_logprobs: list[dict[str, float] | None] = []


class _Choice(_Loose):
    index: int = 0
    token_ids: list[int] | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Details(_Loose):
    cached_tokens: int | None = None


class _Usage(_Loose):
    prompt_tokens: int
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class _Chunk(_Loose):
    model: str = ""
    choices: list[_Choice]
    usage: _Usage | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What a chunk adds to one answer: ids, for each its log-probability with the likeliest ids there, how it ended."""

    index: int
    ids: tuple[int, ...]
    told: tuple[Told, ...] = ()
    reason: FinishReason | None = None


class CompletionReader:
    """SSE lines of one completion -> its steps. `top`: how many likeliest ids were asked for."""

    def __init__(self, top: int | None = None) -> None:
        self._top = top
        self._prompt_tokens = self._cached_tokens = 0
        self._completion_tokens: dict[int, int] = {}
        self.model = ""  # which the server says it answered with
        self.ended = False  # the usage of all has been told, or nothing more comes

    @property
    def usage(self) -> Usage:
        """What has been used so far."""
        return Usage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=sum(self._completion_tokens.values()),
            cached_tokens=self._cached_tokens,
        )

    def read(self, line: bytes) -> list[Step]:
        """What a line adds: nothing for comments and blank ones. Raises the error the stream carries."""
        data = line[5:].strip()
        if not line.startswith(b"data:") or self.ended:
            return []
        if data == b"[DONE]":
            self.ended = True
            return []
        chunk = _parse(data)
        self.model = self.model or chunk.model
        if chunk.usage is not None:
            self._count(chunk.usage, chunk.choices)
        return [self._step(choice) for choice in chunk.choices]

    def _count(self, usage: _Usage, choices: list[_Choice]) -> None:
        self._prompt_tokens = usage.prompt_tokens
        if choices:  # the usage of that answer, so far
            self._completion_tokens[choices[0].index] = usage.completion_tokens or 0
            return
        self._completion_tokens = {0: usage.completion_tokens or 0}
        details = usage.prompt_tokens_details
        self._cached_tokens = (details.cached_tokens if details else None) or 0
        self.ended = True

    def _step(self, choice: _Choice) -> Step:
        if choice.token_ids is None:
            raise EspalierError("the server tells no ids of tokens, which were asked for", hint="vLLM 0.11 or later")
        reason = _REASONS.get(choice.finish_reason, "stop") if choice.finish_reason else None
        if reason == "error":
            raise EspalierError("the server failed while it answered", hint="its log says why")
        return Step(choice.index, tuple(choice.token_ids), self._tell(choice), reason)

    def _tell(self, choice: _Choice) -> tuple[Told, ...]:
        if self._top is None or choice.logprobs is None:
            return ()
        values, tops = choice.logprobs.token_logprobs, choice.logprobs.top_logprobs
        if not len(choice.token_ids or ()) == len(values) == len(tops):
            raise EspalierError("the server tells log-probabilities of other tokens than it gave")
        return tuple((value or 0.0, self._likeliest(top or {})) for value, top in zip(values, tops, strict=True))

    def _likeliest(self, top: dict[str, float]) -> list[tuple[int, float]]:
        # The server adds the chosen token to the likeliest, wherever it stands among them.
        return sorted(((_id_of(token), value) for token, value in top.items()), key=lambda each: -each[1])[: self._top]


def _id_of(token: str) -> int:
    if not token.startswith(_ID) or not token[len(_ID) :].isdigit():
        raise EspalierError("the server names tokens by text, where ids were asked for", hint="vLLM 0.11 or later")
    return int(token[len(_ID) :])


def _parse(data: bytes) -> _Chunk:
    try:
        fields = json.loads(data)
        if isinstance(fields, dict) and "error" in fields:
            code = fields["error"].get("code") if isinstance(fields["error"], dict) else None
            raise decode_error(code if isinstance(code, int) else 500, data)
        return _Chunk.model_validate(fields)
    except ValueError:  # not JSON, or not this shape: pydantic's ValidationError is one too
        raise EspalierError("the server's answer is no text completion") from None
