"""`VllmEngine`: a base and its adapters in vLLM.

What is sent is ids of our own template, and every sampling parameter, so that neither vLLM's template nor a model's
generation_config.json has a say. Adapters are checked here as for the embedded engine, and named by their digests.
Knows no registry.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from espalier.core.errors import EspalierError, NotFound, Unavailable, UnsupportedModel
from espalier.core.ports import ChatRequest, Delta, EngineLoad
from espalier.core.types import ResponseFormat, SamplingSpec
from espalier.nn.adapterfiles import read_stored
from espalier.nn.base import LoadedBase, outline_base
from espalier.nn.plainadapter import is_uniform, write_uniform
from espalier.serve.asked import check_sampling
from espalier.serve.engines.answers import Answers
from espalier.serve.engines.line import Hung, Refused
from espalier.serve.engines.plan import EnginePlan
from espalier.serve.engines.refusal import explain_refusal, find_key
from espalier.serve.engines.roster import Roster
from espalier.serve.engines.vllmserver import VllmOptions, VllmServer
from espalier.serve.room import check_room
from espalier.serve.shape import Shape, Shaper, shown_tools
from espalier.wire.openai.completions import encode_completion_call

_RESERVED, _INTERACTIVE, _BATCH = 0, 1, 2  # vLLM's priorities: lower is earlier


class VllmEngine:
    """Implements core.ports.ModelEngine. Raises InvalidInput for options that are none, or a key that is missing.

    A server found at a URL stays as it is when this stops, with the adapters that were loaded into it.
    """

    def __init__(self, plan: EnginePlan) -> None:
        self._plan = plan
        self._options = plan.options(VllmOptions)
        find_key(plan)
        self._roster = Roster()
        self._placed: dict[str, Path] = {}  # by digest, the folder vLLM read
        self._changing = threading.Lock()  # held while it starts or an adapter is loaded; `stop` cuts in
        self._server: VllmServer | None = None
        self._base: LoadedBase | None = None
        self._shaper: Shaper | None = None

    @property
    def answering(self) -> bool:
        """Whether it may be asked: it was started, and a child has not died."""
        return self._server is not None and self._server.answering

    def start(self) -> Self:
        """Start vLLM, or look for it; returns when it answers.

        Raises what VllmServer and its `open` raise, and `outline_base`.
        """
        with self._changing:
            if self.answering:
                return self
            self.stop()  # what is left of one that died
            self._base = replace(outline_base(self._plan.place), spec=self._plan.base)
            self._shaper = Shaper(self._base.tokenizer, self._base.eos_ids)
            self._server = VllmServer(self._plan, self._options, self._base)
            try:
                self._server.open()
            except BaseException:  # whatever it is, a child must not be left behind
                self.stop()
                raise
        return self

    def stop(self) -> None:
        """Hang up; a child is ended. Answers not finished end as `cancelled`."""
        server = self._server
        if server is not None:
            server.close()
        self._roster.clear()

    def load_adapter(self, digest: str, folder: Path) -> None:
        """Check the adapter as the embedded engine does, then have vLLM load it under its digest.

        Raises what `read_stored` raises, UnsupportedModel (DoRA, a rank too large), InvalidInput (vLLM refuses it).
        """
        server, base, _ = self._started()
        with self._changing:
            if digest not in self._roster.digests():
                place = self._place_adapter(digest, folder, base)
                server.load_adapter(digest, place)
                self._placed[digest] = place
                self._roster.add(digest, digest)

    def unload_adapter(self, digest: str) -> None:
        """Take no new request for it, wait for those under way, have vLLM let it go. Raises NotFound, Conflict."""

        def let_go(name: str) -> None:
            if self._server is not None and self._server.answering:  # else it went with the server
                self._server.unload_adapter(name)
            self._placed.pop(digest, None)
            shutil.rmtree(self._own_copy(digest), ignore_errors=True)

        self._roster.drain(digest, let_go)

    def list_adapters(self) -> list[str]:
        """Digests that may be asked."""
        return self._roster.digests()

    def load(self) -> EngineLoad:
        """What vLLM's /metrics say of all its requests; of tokens and of waiting, what is known of those from here."""
        running, waiting = self._started()[0].count_requests()
        return self._roster.load(running=running, waiting=waiting)

    def count_prompt_tokens(self, request: ChatRequest) -> int:
        """Exact: the prompt's ids are ours. What cannot be answered is refused here already."""
        _, base, shaper = self._started()
        _shape(request, base, shaper)
        return len(base.tokenizer.encode_prompt(request.messages, tools=shown_tools(request)))

    async def stream(self, request: ChatRequest) -> AsyncIterator[Delta]:
        """Answer one request in pieces; the last carries finish reason and usage. Closing the iterator cancels it.

        Raises InvalidInput (context, sampling), NotFound (base, adapter), Conflict (adapter going), RateLimited,
        Unavailable (not started, gone, busy).
        """
        server, base, shaper = self._started()
        if request.base not in ("", base.spec, base.base_digest):
            raise NotFound(f"base {request.base} is not loaded", hint=f"this engine holds {base.spec}")
        sampling = request.sampling
        prompt = base.tokenizer.encode_prompt(request.messages, tools=shown_tools(request))
        check_room(len(prompt), sampling.max_tokens, server.context_tokens)
        shape = await asyncio.to_thread(_shape, request, base, shaper)
        answers = Answers(sampling, base, shape)
        with self._roster.visit(request.adapter, len(prompt) + sampling.max_tokens * sampling.n) as (visit, name):
            body = encode_completion_call(
                name or server.model,
                prompt,
                _with_calls(sampling, shape),
                end_ids=base.eos_ids,
                priority=_priority(request) if server.has_priorities else 0,
                request=f"{request.id}-{secrets.token_hex(4)}",  # vLLM refuses an id it still knows
            )
            try:
                async with aclosing(self._complete(server, body, name)) as lines:
                    async for said in lines:
                        for delta in answers.read(said):
                            visit.begun = True
                            yield _sign(delta, answers.model, name or server.model, request.adapter)
                        if answers.done:
                            return
            except Refused as refused:
                raise explain_refusal(refused.reply) from None
            except Hung:
                for delta in answers.cancel():
                    yield delta
                return
        raise Unavailable("vLLM ended an answer before its end", hint="ask again; its log says why")

    async def _complete(self, server: VllmServer, body: dict[str, Any], adapter: str) -> AsyncGenerator[bytes, None]:
        """The lines vLLM says. An adapter it has lost, as one that was started anew has, is loaded into it again, once.

        Raises Refused, Hung, Unavailable, and what loading raises.
        """
        for lost_before in (False, True):
            try:
                async with aclosing(server.line.stream("/v1/completions", body)) as lines:
                    async for said in lines:
                        yield said
                return
            except Refused as refused:
                if refused.reply.status != 404 or not adapter or lost_before:
                    raise
            await asyncio.to_thread(server.load_adapter, adapter, self._placed[adapter])

    def _started(self) -> tuple[VllmServer, LoadedBase, Shaper]:
        if self._server is None or self._base is None or self._shaper is None or not self._server.answering:
            raise Unavailable("the engine is not running", hint="ask again when it is, or ask another process")
        return self._server, self._base, self._shaper

    def _place_adapter(self, digest: str, folder: Path, base: LoadedBase) -> Path:
        """The folder vLLM is to read: the adapter's own, or a copy in the form every vLLM understands."""
        stored = read_stored(folder, base)
        rank = max(layer.a.shape[0] for layer in stored.layers.values())
        head = base.model.get_output_embeddings()
        if stored.spec.dora or any(base.model.get_submodule(name) is head for name in stored.layers):
            raise UnsupportedModel(
                "vLLM serves no DoRA and no adapter on a base's head",
                where=str(folder),
                hint="merge it and serve the result: `espalier adapter merge`",
            )
        if not self._plan.engine.url and rank > self._options.max_lora_rank:
            raise UnsupportedModel(
                f"the adapter's rank is {rank}, vLLM was started for {self._options.max_lora_rank}",
                where=str(folder),
                hint=f"set {self._plan.where}.options.max_lora_rank",
            )
        if is_uniform(stored):
            return folder
        write_uniform(self._own_copy(digest), stored, base)
        return self._own_copy(digest)

    def _own_copy(self, digest: str) -> Path:
        return self._plan.folder / "adapters" / digest


def _shape(request: ChatRequest, base: LoadedBase, shaper: Shaper) -> Shape:
    """What the answers are made of. Raises InvalidInput where they could not be so."""
    check_sampling(request.sampling, base.tokenizer.size)
    return shaper.shape(request)


def _priority(request: ChatRequest) -> int:
    if request.lane == "batch":
        return _BATCH
    return _RESERVED if request.reservation else _INTERACTIVE


def _sign(delta: Delta, answered: str, asked: str, adapter: str) -> Delta:
    """With the digest its tokens were computed under, as vLLM says. Raises EspalierError when it is another's."""
    if answered != asked:
        raise EspalierError(f"vLLM answered with {answered[:80]}, {asked[:80]} was asked")
    return replace(delta, adapter=adapter) if delta.finish_reason else delta


def _with_calls(sampling: SamplingSpec, shape: Shape) -> SamplingSpec:
    """With the grammar of calls as the answer's form, where calls must come or must keep to their schemas."""
    if not shape.written:
        return sampling
    return sampling.model_copy(update={"format": ResponseFormat(kind="grammar", text=shape.written)})
