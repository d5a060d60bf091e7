"""`OpenAIEngine`: any server of OpenAI's chat completions as an engine: llama.cpp, SGLang, TGI, another Espalier.

Messages go out and the server's own template makes the prompt, so it is for bases whose template is not ours to keep.
It cannot be made to load an adapter: those it has are named in the settings. Knows no ids of tokens.
"""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from espalier.core.errors import InvalidInput, NotFound, Unavailable
from espalier.core.ports import ChatRequest, Delta, EngineLoad
from espalier.core.types import Message, SamplingSpec, Spec, Usage
from espalier.serve.engines.line import Hung, Line, Refused
from espalier.serve.engines.plan import EnginePlan
from espalier.serve.engines.refusal import explain_refusal, find_key
from espalier.serve.engines.roster import Roster
from espalier.serve.room import check_room
from espalier.wire.openai.chunks import EventReader
from espalier.wire.openai.request import ChatCall, encode_chat

_HEALTH_S = 10.0
_SHORTEST_DIGEST = 12  # of a digest that settings may name by its beginning
# More than any template in use writes around a message and around all of them.
_TURN_TOKENS, _TEMPLATE_TOKENS = 16, 128


class OpenAIOptions(Spec):
    """`options` of an engine of kind openai."""

    model: str = Field("", description="what the server calls the base; empty = what it names first")
    adapters: dict[str, str] = Field(
        {}, description="digest of an adapter, or its first 12 figures and more -> what the server calls that model"
    )
    length_field: Literal["max_completion_tokens", "max_tokens"] = Field(
        "max_tokens", description="how the server spells the most tokens of an answer"
    )
    idle_timeout_s: float = Field(600.0, gt=0, description="how long it may say nothing on a request")


class OpenAIEngine:
    """Implements core.ports.ModelEngine. Raises InvalidInput: options that are none, no url, a key that is missing."""

    def __init__(self, plan: EnginePlan) -> None:
        self._plan = plan
        self._options = plan.options(OpenAIOptions)
        if not plan.engine.url:
            raise InvalidInput("an engine of kind openai needs the url of its server", where=f"{plan.where}.url")
        for digest in self._options.adapters:
            if len(digest) < _SHORTEST_DIGEST or not set(digest) <= set("0123456789abcdef"):
                raise InvalidInput(
                    f"{digest[:80]!r} is no digest of an adapter",
                    where=f"{plan.where}.options.adapters",
                    hint=f"at least the first {_SHORTEST_DIGEST} figures, as `espalier models show` tells them",
                )
        url = plan.engine.url.rstrip("/").removesuffix("/v1")
        self._line = Line(url, key=find_key(plan), idle_s=self._options.idle_timeout_s)
        self._roster = Roster()
        self._starting = threading.Lock()
        self._model = self._options.model
        self.context_tokens = plan.serve.max_context_tokens

    @property
    def answering(self) -> bool:
        """Whether it may be asked: it was started."""
        return self._line.is_open

    def start(self) -> Self:
        """Look for the server and its model. Raises Unavailable, NotFound (it serves no such model)."""
        with self._starting:
            if not self._line.is_open:
                self._line.open()
                try:
                    self._model = self._find_model()
                except BaseException:
                    self._line.close()
                    raise
        return self

    def stop(self) -> None:
        """Hang up; answers not finished end as `cancelled`."""
        with self._starting:
            self._line.close()
            self._roster.clear()

    def load_adapter(self, digest: str, folder: Path) -> None:
        """Answer as `digest` with the model that the settings name for it. Raises InvalidInput where they name none.

        The folder is not looked into: what the server loaded under that name is whoever set it up answerable for.
        """
        name = next((name for start, name in self._options.adapters.items() if digest.startswith(start)), "")
        if not name:
            raise InvalidInput(
                f"{self._line.url} loads no adapters at run time, and the settings name none for {digest[:12]}",
                where=f"{self._plan.where}.options.adapters",
                hint="load it into that server and name it there, or serve it with kind embedded or vllm",
            )
        self._roster.add(digest, name)

    def unload_adapter(self, digest: str) -> None:
        """Take no new request for it and wait for those under way. Raises NotFound, Conflict."""
        self._roster.drain(digest, lambda name: None)

    def list_adapters(self) -> list[str]:
        """Digests that may be asked."""
        return self._roster.digests()

    def load(self) -> EngineLoad:
        """By the requests sent from here; the server may have others."""
        return self._roster.load()

    def count_prompt_tokens(self, request: ChatRequest) -> int:
        """An upper bound: no token is shorter than a byte."""
        texts = [_spelt(message) for message in request.messages]
        tools = sum(len(tool.model_dump_json().encode()) for tool in request.tools)
        return sum(len(text.encode()) + _TURN_TOKENS for text in texts) + tools + _TEMPLATE_TOKENS

    async def stream(self, request: ChatRequest) -> AsyncIterator[Delta]:
        """Answer one request in pieces; the last carries finish reason and usage. Closing the iterator cancels it.

        Raises InvalidInput, NotFound (base, adapter), Conflict (adapter going), RateLimited, Unavailable.
        """
        if not self._line.is_open:
            raise Unavailable("the engine is not running", hint="ask again when it is, or ask another process")
        if request.base not in ("", self._plan.base):
            raise NotFound(f"base {request.base} is not served here", hint=f"this engine holds {self._plan.base}")
        most_tokens = self.count_prompt_tokens(request)
        # The bound is no measure of the context, the server knows its prompt: only an answer can be too long here.
        check_room(1, request.sampling.max_tokens, self.context_tokens)
        answers = _Answers(request.sampling, most_tokens)
        with self._roster.visit(request.adapter, most_tokens + request.sampling.max_tokens) as (visit, name):
            try:
                async with aclosing(self._line.stream("/v1/chat/completions", self._body(request, name))) as lines:
                    async for said in lines:
                        for delta in answers.read(said):
                            visit.begun = True
                            yield replace(delta, adapter=request.adapter) if delta.finish_reason else delta
            except Refused as refused:
                raise explain_refusal(refused.reply) from None
            except Hung:
                for delta in answers.cancel():
                    yield delta
                return
            for delta in answers.end():
                yield replace(delta, adapter=request.adapter)

    def _body(self, request: ChatRequest, name: str) -> dict[str, Any]:
        sampling, neutral = request.sampling, SamplingSpec()
        said = {
            field: getattr(sampling, field)
            for field in SamplingSpec.model_fields
            if field in ChatCall.model_fields and getattr(sampling, field) != getattr(neutral, field)
        }
        call = ChatCall(
            model=name or self._model,
            messages=tuple(request.messages),
            tools=request.tools,
            tool_choice=request.tool_choice,
            parallel_calls=request.parallel_calls,
            stream=True,
            include_usage=True,
            **(said | {"temperature": sampling.temperature, "max_tokens": sampling.max_tokens}),
        )
        body = encode_chat(call)
        body.pop("max_completion_tokens", None)
        return body | {self._options.length_field: sampling.max_tokens}

    def _find_model(self) -> str:
        """What the server calls the base. Raises Unavailable, NotFound."""
        reply = self._line.call("GET", "/v1/models", timeout_s=_HEALTH_S)
        if reply.status != 200:
            raise explain_refusal(reply)
        try:
            names = [str(card["id"]) for card in json.loads(reply.content)["data"]]
        except (ValueError, LookupError, TypeError):
            raise Unavailable(f"{self._line.url} lists no models", hint="does it speak OpenAI's API?") from None
        wanted = self._options.model or (names[0] if names else "")
        if wanted not in names:
            raise NotFound(f"{self._line.url} serves no {wanted!r}", hint=f"it serves {', '.join(names[:8])}")
        return wanted


class _Answers:
    """The answers to one request as their pieces come: the very last is held back until the usage of all is known."""

    def __init__(self, sampling: SamplingSpec, most_prompt_tokens: int) -> None:
        self._open = set(range(sampling.n))
        self._most = (most_prompt_tokens, sampling.max_tokens * sampling.n)
        self._reader = EventReader()
        self._pieces = 0
        self._used: Usage | None = None
        self._last: Delta | None = None

    def read(self, line: bytes) -> list[Delta]:
        """What a line adds. Raises what EventReader raises."""
        found = []
        for delta in self._reader.read(line):
            self._used = delta.usage or self._used
            if delta.finish_reason:
                self._open.discard(delta.index)
            if delta.finish_reason and not self._open:
                self._last = delta
            elif delta.finish_reason or delta.text or delta.logprobs:
                self._pieces += 1
                found.append(replace(delta, usage=self._usage() if not delta.finish_reason else None))
        return found

    def end(self) -> list[Delta]:
        """The held-back end with the usage. Raises Unavailable when the stream broke off before it."""
        if self._last is None:
            raise Unavailable("the model's server ended an answer before its end", hint="ask again")
        return [replace(self._last, usage=self._usage())]

    def cancel(self) -> list[Delta]:
        """The ends of answers that will not come."""
        *others, last = sorted(self._open) or [0]
        return [Delta("", "cancelled", index=index) for index in others] + [
            Delta("", "cancelled", self._usage(), index=last)
        ]

    def _usage(self) -> Usage:
        """As the server says; where it has not, no less than was used of the prompt, and a token for each piece."""
        if self._used is not None:
            return self._used
        return Usage(prompt_tokens=self._most[0], completion_tokens=min(self._pieces, self._most[1]))


def _spelt(message: Message) -> str:
    calls = "".join(call.name + call.arguments for call in message.tool_calls)
    return message.content + calls
