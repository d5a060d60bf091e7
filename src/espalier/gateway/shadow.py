"""Shadows: versions that answer a copy of a request after its client has been answered. Nobody hears them.

A shadow runs in the batch lane, so that it takes nothing from those who wait; where many are under way already, the
copy is dropped and counted. Its usage row is nobody's bill: it has no key, and says whose copy it was, whether the
words were the same, and how long it took. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, cast

from espalier.core.errors import EspalierError
from espalier.core.ids import make_id, now_ms
from espalier.core.ports import ChatProvider, ChatRequest, Delta
from espalier.core.refs import Ref
from espalier.gateway.budget import Budgets
from espalier.gateway.price import PriceList
from espalier.gateway.route import Resolver
from espalier.gateway.ticket import ShadowOf, Ticket, write_usage

_MOST_AT_ONCE = 8
_log = logging.getLogger("espalier.gateway")


@dataclass(slots=True)
class Shadows:
    """Use from one event loop. `admitting` and `booking` run a blocking call in the desk's threads for each."""

    provider: ChatProvider
    resolver: Resolver
    budgets: Budgets
    prices: PriceList
    admitting: Callable[..., Awaitable[Any]]
    booking: Callable[..., Awaitable[Any]]
    dropped: int = 0
    _running: set[asyncio.Task[None]] = field(default_factory=set)

    def cast(self, ticket: Ticket) -> None:
        """Have every shadow of an answered ticket answer too, some time."""
        for model in ticket.target.shadows:
            if len(self._running) >= _MOST_AT_ONCE:
                self.dropped += 1
                continue
            task = asyncio.get_running_loop().create_task(self._answer(ticket, model))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def stop(self) -> None:
        """Give up those under way; what they used is written all the same."""
        for task in list(self._running):
            task.cancel()
        if self._running:
            await asyncio.wait(set(self._running))

    async def _answer(self, original: Ticket, model: str) -> None:
        try:
            shadow = await self.admitting(self._admit, original, model)
        except EspalierError as error:
            _log.warning("shadow %s of %s: %s", model, original.id, error)
            return
        texts: list[str] = []
        try:
            stream = cast("AsyncGenerator[Delta, None]", self.provider.stream(shadow.request))
            async with aclosing(stream):
                async for delta in stream:
                    shadow.note(delta)
                    texts.append(delta.text if delta.index == 0 else "")
        except EspalierError as error:
            shadow.finish_reason = "error"
            _log.warning("shadow %s of %s: %s", model, original.id, error)
        finally:
            shadow.shadow_of = ShadowOf(original.id, original.target.model, "".join(texts) == "".join(original.heard))
            await asyncio.shield(self.booking(self.budgets.settle, write_usage(shadow)))

    def _admit(self, original: Ticket, model: str) -> Ticket:
        """Blocks: an adapter may have to be loaded."""
        found = self.resolver.find_version(Ref.parse(model, kind="model"))
        target = replace(found, deployment=original.target.deployment)
        asked = original.request
        sampling = asked.sampling.model_copy(update={"n": 1, "logprobs": None})
        request = ChatRequest(
            make_id("req"), target.base, target.adapter, asked.messages, sampling, asked.tools, asked.tool_choice,
            flow="shadow", lane="batch",
        )  # fmt: skip
        prompt_tokens = self.provider.count_prompt_tokens(request)
        price = self.prices.find(target.names)
        return Ticket(request, original.call, target, None, price, prompt_tokens, time.monotonic(), now_ms())
