"""A chat.completion in pieces, as server-sent events: `Delta` -> chunks, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from espalier.core.ports import Delta
from espalier.core.types import ToolCall, Usage
from espalier.wire.openai.response import (
    Call,
    completion_id,
    decode_finish,
    encode_finish,
    encode_logprobs,
    encode_usage,
    read_answer,
)
from espalier.wire.openai.turns import encode_call

DONE = b"data: [DONE]\n\n"


@dataclass(slots=True)
class ChunkWriter:
    """Writes a request's answers as server-sent events: a `write` per delta, maybe `usage`, then `DONE`."""

    request: str
    model: str
    created_s: int
    include_usage: bool = False
    fingerprint: str = ""  # digest of the adapter; empty = the base itself
    _begun: set[int] = field(default_factory=set)  # answers whose role was said
    _calls: dict[int, int] = field(default_factory=dict)  # by answer: calls said

    def write(self, delta: Delta) -> bytes:
        """The events of one delta: the role before an answer's first, what it says, and how it ends."""
        events = b""
        if delta.index not in self._begun:
            self._begun.add(delta.index)
            events += self._chunk(delta.index, {"role": "assistant", "content": ""})
        if delta.text or delta.logprobs:
            events += self._chunk(delta.index, {"content": delta.text}, encode_logprobs(delta.logprobs))
        if delta.tool_calls:
            first = self._calls.get(delta.index, 0)
            self._calls[delta.index] = first + len(delta.tool_calls)
            calls = [{"index": number, **encode_call(call)} for number, call in enumerate(delta.tool_calls, first)]
            events += self._chunk(delta.index, {"tool_calls": calls})
        if delta.finish_reason:
            events += self._chunk(delta.index, {}, None, encode_finish(delta.finish_reason))
        return events

    def usage(self, usage: Usage) -> bytes:
        """The extra chunk without choices that `stream_options.include_usage` asks for."""
        return self._event([], encode_usage(usage))

    def _chunk(
        self, index: int, said: dict[str, Any], logprobs: dict[str, Any] | None = None, finish: str | None = None
    ) -> bytes:
        choice = {"index": index, "delta": said, "logprobs": logprobs, "finish_reason": finish}
        return self._event([choice], None)

    def _event(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None) -> bytes:
        body: dict[str, Any] = {
            "id": completion_id(self.request),
            "object": "chat.completion.chunk",
            "created": self.created_s,
            "model": self.model,
            "choices": choices,
            "system_fingerprint": self.fingerprint or None,
        }
        if self.include_usage:
            body["usage"] = usage
        # Escaped to ASCII: some clients split events at every line end that Unicode knows, such as U+2028.
        return b"data: " + json.dumps(body).encode() + b"\n\n"


@dataclass(slots=True)
class EventReader:
    """Reads one stream's lines; remembers the calls of tools that come in pieces until they are whole."""

    _calls: dict[int, dict[int, ToolCall]] = field(default_factory=dict)  # by answer, by call

    def read(self, line: bytes) -> Iterator[Delta]:
        """The deltas of one line: none for comments, blank lines and `[DONE]`.

        Calls come on the delta with the finish reason. Usage may come on a delta of its own, without text. Raises the
        error that the stream carries, and EspalierError for a line that is no chunk.
        """
        data = line.strip().removeprefix(b"data:").strip()
        if not line.startswith(b"data:") or data == b"[DONE]":
            return
        answer = read_answer(data)
        for choice in answer.choices:
            for piece in choice.delta.tool_calls or ():
                self._gather(choice.index, piece)
            text, tokens, finish = choice.delta.content or "", choice.tokens(), choice.finish_reason
            if finish:
                calls = tuple(call for _, call in sorted(self._calls.pop(choice.index, {}).items()))
                yield Delta(text, decode_finish(finish), index=choice.index, logprobs=tokens, tool_calls=calls)
            elif text or tokens:
                yield Delta(text, index=choice.index, logprobs=tokens)
        if answer.usage is not None:
            yield Delta("", usage=answer.usage.decode())

    def _gather(self, answer: int, piece: Call) -> None:
        calls = self._calls.setdefault(answer, {})
        number = len(calls) if piece.index is None else piece.index
        known = calls.get(number, ToolCall("", "", ""))
        calls[number] = ToolCall(
            known.id or piece.id or "",
            known.name + (piece.function.name or ""),
            known.arguments + (piece.function.arguments or ""),
        )
