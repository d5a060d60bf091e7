"""Text completions with vLLM's extensions: prompt ids and every way of sampling out, SSE lines in as `Delta`s.

The chat template stays ours: what is sent is the prompt's ids, never messages. Fields and their meaning are those of
vLLM's CompletionRequest (vllm/entrypoints/openai/completion/protocol.py, 0.11 and on); all that a model's
generation_config.json could set otherwise is always said. Knows no network.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from espalier.core.errors import EspalierError, InvalidInput
from espalier.core.ports import Delta
from espalier.core.types import ResponseFormat, SamplingSpec, TokenLogprob, Usage
from espalier.core.types.inference import FinishReason
from espalier.wire.openai.failure import decode_error

Spell = Callable[[int], bytes]  # a token id -> its bytes

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
    priority scheduling takes 0 only. Where nothing is drawn all `n` answers are one, so one is asked for (vLLM refuses
    more), and CompletionReader gives it out `n` times. Raises InvalidInput for a logit bias the server would clip.
    """
    if any(abs(bias) > _BIAS_MOST for _, bias in sampling.logit_bias):
        raise InvalidInput(f"a logit bias goes from -{_BIAS_MOST:g} to {_BIAS_MOST:g}", where="logit_bias")
    body: dict[str, Any] = {
        "model": model,
        "prompt": list(prompt),
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
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
        return {"json": json.loads(form.text)}
    return {form.kind: form.text}


class _Loose(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Logprobs(_Loose):
    tokens: list[str] = []
    token_logprobs: list[float | None] = []
    top_logprobs: list[dict[str, float] | None] = []


class _Choice(_Loose):
    index: int = 0
    text: str = ""
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


class CompletionReader:
    """SSE lines of one completion -> its `Delta`s. The very last is held back until the usage of all is known.

    sampling: as it was asked with; spell: a token's bytes, for log-probabilities.
    """

    def __init__(self, sampling: SamplingSpec, spell: Spell) -> None:
        drawn = sampling.temperature > 0
        self._copies = 1 if drawn else sampling.n
        self._open = set(range(sampling.n if drawn else 1))
        self._top = sampling.logprobs
        self._spell = spell
        self._prompt_tokens = self._cached_tokens = 0
        self._completion_tokens: dict[int, int] = {}
        self._last: Delta | None = None  # the finish of the last answer, held back
        self.model = ""  # which the server says it answered with
        self.done = False  # nothing more comes

    @property
    def usage(self) -> Usage:
        """What has been used so far."""
        return Usage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=sum(self._completion_tokens.values()) * self._copies,
            cached_tokens=self._cached_tokens,
        )

    def read(self, line: bytes) -> list[Delta]:
        """What a line adds: nothing for comments and blank ones. Raises the error the stream carries."""
        if self.done or not line.startswith(b"data:"):
            return []
        data = line[5:].strip()
        if data == b"[DONE]":
            return self._finish()
        chunk = _parse(data)
        self.model = self.model or chunk.model
        found = []
        for choice in chunk.choices:
            self._count(chunk.usage, choice.index)
            found += self._pieces(choice)
        if not chunk.choices and chunk.usage is not None:
            self._settle(chunk.usage)
            found += self._finish()
        return found

    def cancel(self) -> list[Delta]:
        """The ends of answers that will not come, the last with the usage so far."""
        *others, last = sorted(self._open) or [0]
        self.done = True
        ends = [Delta("", "cancelled", index=index) for index in others]
        return [*ends, Delta("", "cancelled", self.usage, index=last)]

    def _count(self, usage: _Usage | None, index: int) -> None:
        if usage is not None:
            self._prompt_tokens = usage.prompt_tokens
            self._completion_tokens[index] = usage.completion_tokens or 0

    def _settle(self, usage: _Usage) -> None:
        self._prompt_tokens = usage.prompt_tokens
        self._completion_tokens = {0: usage.completion_tokens or 0}
        details = usage.prompt_tokens_details
        self._cached_tokens = (details.cached_tokens if details else None) or 0

    def _pieces(self, choice: _Choice) -> list[Delta]:
        logprobs = self._logprobs(choice.logprobs)
        reason = _REASONS.get(choice.finish_reason, "stop") if choice.finish_reason else None
        if reason is None:
            if not choice.text and not logprobs:
                return []
            return [
                Delta(choice.text, usage=self.usage, index=index, logprobs=logprobs) for index in self._given(choice)
            ]
        if reason == "error":
            raise EspalierError("the server failed while it answered", hint="its log says why")
        self._open.discard(choice.index)
        *others, last = [Delta(choice.text, reason, index=index, logprobs=logprobs) for index in self._given(choice)]
        if self._open:
            return [*others, last]
        self._last = last
        return others

    def _given(self, choice: _Choice) -> range:
        return range(self._copies) if self._copies > 1 else range(choice.index, choice.index + 1)

    def _finish(self) -> list[Delta]:
        if self._open or self._last is None:
            raise EspalierError("the server's answer broke off before its end", hint="its log says why")
        last, self._last, self.done = self._last, None, True
        return [Delta(last.text, last.finish_reason, self.usage, last.index, last.logprobs)]

    def _logprobs(self, told: _Logprobs | None) -> tuple[TokenLogprob, ...]:
        if told is None or self._top is None:
            return ()
        tops = told.top_logprobs or [None] * len(told.tokens)
        return tuple(
            self._token(token, value if value is not None else 0.0, top or {})
            for token, value, top in zip(told.tokens, told.token_logprobs, tops, strict=True)
        )

    def _token(self, token: str, logprob: float, top: dict[str, float]) -> TokenLogprob:
        # The server adds the chosen token to the likeliest, wherever it stands among them.
        likeliest = sorted(top.items(), key=lambda each: -each[1])[: self._top]
        id = _id_of(token)
        others = tuple(TokenLogprob(_id_of(each), self._spell(_id_of(each)), value) for each, value in likeliest)
        return TokenLogprob(id, self._spell(id), logprob, others)


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
