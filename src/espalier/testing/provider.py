"""A `ChatProvider` without a model, strict about how it is used: for tests of whatever stands in front of one.

Its tokens are words. It answers with the last user message's words in reverse, or with what it was given, one word
a delta, and remembers every request: which are open, which ended, which were cancelled. Two requests under one id,
a base it does not have, or a prompt counted otherwise than it is sent are errors at once, where a lenient fake
would hide a bug.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from espalier.core.errors import EspalierError, InvalidInput, NotFound
from espalier.core.ports import ChatRequest, Delta
from espalier.core.types import Usage

TEMPLATE_TOKENS = 3  # what the turns of a message cost besides its words


class StrictProvider:
    """Loop-bound like a real engine. `gate`, when set, holds every answer before its second word until it is opened."""

    def __init__(self, *, bases: Sequence[str] = ("builtin:seedling",), answer: str = "", delay_s: float = 0.0) -> None:
        self.requests: dict[str, ChatRequest] = {}
        self.open: set[str] = set()
        self.finished: set[str] = set()
        self.cancelled: set[str] = set()
        self.held = 0  # answers waiting at the gate now
        self.gate: asyncio.Event | None = None
        self.fail_after: int | None = None  # words given before it breaks down
        self._bases = frozenset(bases)
        self._answer = answer
        self._delay_s = delay_s

    def count_prompt_tokens(self, request: ChatRequest) -> int:
        self._check(request)
        return sum(TEMPLATE_TOKENS + len(message.content.split()) for message in request.messages)

    async def stream(self, request: ChatRequest) -> AsyncIterator[Delta]:
        """One delta a word, each with the usage so far."""
        self._begin(request)
        words = self._words(request)
        prompt_tokens, most = self.count_prompt_tokens(request), request.sampling.max_tokens
        try:
            for number, piece in enumerate(words[:most], 1):
                await self._wait(number)
                usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=number)
                yield Delta(piece, usage=usage)
            used = Usage(prompt_tokens=prompt_tokens, completion_tokens=min(len(words), most))
            yield Delta("", "length" if len(words) > most else "stop", used)
            self.finished.add(request.id)
        finally:
            self.open.discard(request.id)
            if request.id not in self.finished:
                self.cancelled.add(request.id)

    def _begin(self, request: ChatRequest) -> None:
        self._check(request)
        if request.id in self.requests:
            raise EspalierError(f"request {request.id} was sent twice")
        self.requests[request.id] = request
        self.open.add(request.id)

    def _check(self, request: ChatRequest) -> None:
        if request.base not in self._bases:
            raise NotFound(f"no base {request.base} is loaded", where="model")
        if not request.messages:
            raise InvalidInput("no message to answer", where="messages")

    async def _wait(self, number: int) -> None:
        await asyncio.sleep(self._delay_s)
        if self.gate is not None and number > 1:
            self.held += 1
            try:
                await self.gate.wait()
            finally:
                self.held -= 1
        if self.fail_after is not None and number > self.fail_after:
            raise RuntimeError("the engine broke down")

    def _words(self, request: ChatRequest) -> list[str]:
        """The answer's pieces, whose concatenation is its text; cut before the first stop string."""
        question = next((m.content for m in reversed(request.messages) if m.role == "user"), "")
        text = self._answer or " ".join(reversed(question.split()))
        for stop in request.sampling.stop:
            text = text.partition(stop)[0]
        words = text.split(" ")
        return [word if number == 0 else f" {word}" for number, word in enumerate(words) if word or number]
