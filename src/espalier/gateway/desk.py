"""The desk every chat passes, whichever door it came through: admitted, answered, accounted for.

    admit   limit -> route -> may this key ask it -> count the prompt -> price -> reserve     (blocks: off the loop)
    answer  the provider's deltas as they come; however it ends, what was used is settled and written to the ledger

Knows no HTTP and no model.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from espalier.core.errors import (
    EspalierError,
    InvalidInput,
    PermissionDenied,
    RateLimited,
    Unavailable,
    UnsupportedModel,
)
from espalier.core.ids import make_id, now_ms
from espalier.core.ports import ChatProvider, ChatRequest, Delta, Lane, LoadsOnDemand
from espalier.core.types import Completion, Generation, Usage
from espalier.gateway.budget import Budgets
from espalier.gateway.keys import ApiKey
from espalier.gateway.limits import RateLimiter
from espalier.gateway.price import PriceList
from espalier.gateway.route import Resolver, Target, resolve
from espalier.gateway.shadow import Shadows
from espalier.gateway.ticket import Ticket, write_usage
from espalier.wire.openai.request import ChatCall

Result = TypeVar("Result")

# Authentication and settlement must not wait for admission, nor the admission of who asks a base that is there for who
# asks one that is to be loaded first: that may take minutes.
_ADMITTING_THREADS = 4
_LOADING_THREADS = 16
_BOOKING_THREADS = 2
_UNFINISHED = ("cancelled", "error")
_log = logging.getLogger("espalier.gateway")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request to a deployment's variant ended, as a canary is judged by it."""

    target: Target
    failed: bool
    latency_ms: int = 0


@dataclass(frozen=True, slots=True)
class _Draft:
    """A request whose answerer is known, and its prompt's length not yet."""

    call: ChatCall
    key: ApiKey | None
    target: Target
    request: ChatRequest
    started_s: float
    started_ms: int


class Desk:
    """Admits and answers for one provider. Use from one event loop; `admit` may be called from any thread."""

    def __init__(
        self,
        provider: ChatProvider,
        resolver: Resolver,
        budgets: Budgets,
        prices: PriceList,
        limiter: RateLimiter,
        *,
        on_settled: Callable[[Ticket], None] = lambda ticket: None,
        on_outcome: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        self._provider = provider
        self._budgets = budgets
        self._prices = prices
        self._limiter = limiter
        self._admitting = ThreadPoolExecutor(_ADMITTING_THREADS, "admit")
        self._loading = ThreadPoolExecutor(_LOADING_THREADS, "admit-cold")
        self._booking = ThreadPoolExecutor(_BOOKING_THREADS, "book")
        self.resolver = resolver
        self.on_settled = on_settled
        self.on_outcome = on_outcome
        self.shadows = Shadows(provider, resolver, budgets, prices, self._loading_thread, self.off_loop)

    def route(self, call: ChatCall, key: ApiKey | None, request_id: str) -> Target:
        """What answers this call. Raises NotFound (no such model), PermissionDenied."""
        target = resolve(self.resolver, call.model, asker=call.user, request=request_id)
        names = (target.deployment,) if target.deployment else (target.model, target.name, target.base)
        if key is not None and not key.allows((call.model, *names)):
            raise PermissionDenied(f"key {key.id} may not ask {call.model}", hint=f"it may ask {', '.join(key.models)}")
        return target

    def admit(
        self, call: ChatCall, key: ApiKey | None, request_id: str = "", *, lane: Lane = "interactive", pinned: str = ""
    ) -> Ticket:
        """Reserve and pin everything the answer needs.

        `pinned` is the version that answers whatever the call's name means by now: its route was asked for before. In
        the batch lane no rate is limited, since it has what others leave over, and a ticket whose answer breaks off is
        not settled: the same request is asked again, under the reservation it has.

        Raises RateLimited, NotFound (no such model), PermissionDenied, InvalidInput (the prompt is too long),
        BudgetExceeded.
        """
        return self._write_ticket(self._draft(call, key, request_id, lane=lane, pinned=pinned))

    def _draft(
        self, call: ChatCall, key: ApiKey | None, request_id: str, *, lane: Lane = "interactive", pinned: str = ""
    ) -> _Draft:
        started_s, started_ms = time.monotonic(), now_ms()
        if key is not None and lane == "interactive":
            self._limiter.take(key.payer, key.requests_per_minute)
        request_id = request_id or make_id("req")
        target = resolve(self.resolver, pinned) if pinned else self.route(call, key, request_id)
        request = ChatRequest(
            request_id, target.base, target.adapter, list(call.messages), call.sampling(target.defaults), call.tools,
            call.tool_choice, parallel_calls=call.parallel_calls, flow=key.payer if key else target.name, lane=lane,
            reservation=target.reservation,
        )  # fmt: skip
        return _Draft(call, key, target, request, started_s, started_ms)

    def _write_ticket(self, draft: _Draft) -> Ticket:
        call, key, target, request = draft.call, draft.key, draft.target, draft.request
        sampling = request.sampling
        prompt_tokens = self._count_prompt(request, target)
        room = target.context_tokens - (1 if target.is_bounded else prompt_tokens)
        if room < 1:
            raise InvalidInput(
                f"the prompt has {prompt_tokens} tokens, {target.model} reads {target.context_tokens} with its answer",
                where="messages",
                hint="shorten it",
            )
        request.sampling = sampling.model_copy(update={"max_tokens": min(sampling.max_tokens, room)})
        ticket = Ticket(
            request, call, target, key, self._prices.find(target.names, request.lane), prompt_tokens, draft.started_s,
            draft.started_ms,
        )  # fmt: skip
        detail = {"asked": call.model, "model": target.model, "adapter": target.adapter}
        held = self._budgets.reserve(
            ticket.id, key, ticket.price, prompt_tokens, request.sampling.max_tokens * sampling.n, detail
        )
        ticket.reserved_nusd, ticket.price, ticket.most_nusd = held.amount_nusd, held.price, held.most_nusd
        return ticket

    def _count_prompt(self, request: ChatRequest, target: Target) -> int:
        """Exact, or above it. A version that cannot be loaded is its failure, where a canary is watched."""
        try:
            return self._provider.count_prompt_tokens(request)
        except EspalierError as error:
            if target.deployment and _is_failure(error):
                self.on_outcome(Outcome(target, failed=True))
            raise

    async def admit_soon(self, call: ChatCall, key: ApiKey | None, request_id: str = "") -> Ticket:
        """`admit` off the event loop. A caller who is cancelled meanwhile leaves no reservation behind."""
        admitted = await self._admit_in(self._admitting, self._admit_ready, call, key, request_id)
        if isinstance(admitted, _Draft):
            admitted = await self._admit_in(self._loading, self._write_ticket, admitted)
        return admitted

    def _admit_ready(self, call: ChatCall, key: ApiKey | None, request_id: str) -> Ticket | _Draft:
        """A ticket, or a draft where the base is yet to be loaded."""
        draft = self._draft(call, key, request_id)
        waits = isinstance(self._provider, LoadsOnDemand) and not self._provider.is_ready(draft.target.base)
        return draft if waits else self._write_ticket(draft)

    async def _admit_in(self, threads: Executor, admit: Callable[..., Result], *arguments: Any) -> Result:
        admitting = threads.submit(admit, *arguments)
        try:
            return await asyncio.shield(asyncio.wrap_future(admitting))
        except asyncio.CancelledError:
            admitting.add_done_callback(self._abandon)  # where this loop may have ended by then, or here and now
            raise

    async def answer(self, ticket: Ticket) -> AsyncIterator[Delta]:
        """The answer's deltas. Close the iterator to cancel: the provider stops, what was used is settled.

        Raises Unavailable when the engine stopped, EspalierError when another adapter answered than the pinned one.
        """
        try:
            stream = cast("AsyncGenerator[Delta, None]", self._provider.stream(ticket.request))
            async with aclosing(stream):
                async for delta in stream:
                    ticket.note(delta)
                    if delta.finish_reason not in _UNFINISHED:
                        yield delta
            if ticket.finished < ticket.request.sampling.n:  # an engine that stops, cancels what it has not finished
                raise Unavailable("the engine stopped in the middle of the answer", hint="try again")
        except Exception as error:
            ticket.finish_reason = "error"
            ticket.refused = not _is_failure(error)
            raise
        finally:
            await self.close(ticket)

    async def complete(self, ticket: Ticket) -> Completion:
        """The whole answer at once."""
        async with aclosing(cast("AsyncGenerator[Delta, None]", self.answer(ticket))) as deltas:
            told = [delta async for delta in deltas]
        answers = [_join([delta for delta in told if delta.index == i]) for i in range(ticket.request.sampling.n)]
        return Completion(
            request=ticket.id,
            model=ticket.call.model,
            resolved=ticket.target.model,
            adapter=ticket.target.adapter,
            generation=answers[0].model_copy(update={"usage": ticket.used()}),
            others=tuple(answers[1:]),
            cost_nusd=ticket.cost_nusd,
            latency_ms=ticket.latency_ms,
        )

    async def close(self, ticket: Ticket) -> None:
        """Settle a ticket, whatever became of it. Does nothing the second time."""
        if ticket.settled or ticket.is_to_be_resumed:
            return
        ticket.settled = True
        entry = write_usage(ticket)
        try:
            # Shielded: a cancelled request is still charged for what it used.
            await asyncio.shield(self.off_loop(self._budgets.settle, entry))
        except EspalierError as error:
            # The answer is out; its reservation stays held until a restart settles it, so that no budget is overdrawn.
            _log.error("request %s could not be settled: %s", ticket.id, error)
            if ticket.request.lane == "batch":  # nobody has seen it yet: the same line is asked, and settled, again
                raise Unavailable("the answer could not be settled", hint="try again") from error
        finally:
            self.on_settled(ticket)
            if ticket.target.deployment and ticket.finish_reason != "cancelled" and not ticket.refused:
                failed = ticket.finish_reason == "error"
                self.on_outcome(Outcome(ticket.target, failed=failed, latency_ms=ticket.latency_ms))
                if not failed:
                    self.shadows.cast(ticket)

    async def off_loop(self, call: Callable[..., Result], *arguments: Any) -> Result:
        """Run a short blocking call, such as one transaction, in the desk's threads."""
        return await asyncio.get_running_loop().run_in_executor(self._booking, call, *arguments)

    async def _loading_thread(self, call: Callable[..., Result], *arguments: Any) -> Result:
        """Run a blocking call that may wait for a model to be loaded."""
        return await asyncio.get_running_loop().run_in_executor(self._loading, call, *arguments)

    def release_line(self, request: str) -> None:
        """Free what is held for a line of a batch that will not be asked again. Blocks."""
        self._budgets.release(request)

    def release_lines(self, batch: str) -> int:
        """Free what is held for lines of a batch that has ended. Blocks."""
        return self._budgets.release_lines(batch)

    async def start(self) -> None:
        """Settle what a process that died left reserved."""
        recovered = await self.off_loop(self._budgets.recover)
        if recovered:
            _log.warning("settled %d requests of a process that died", recovered)

    def stop(self) -> None:
        """Wait for running settlements; nothing is admitted afterwards."""
        self._admitting.shutdown(wait=True)
        self._loading.shutdown(wait=True)
        self._booking.shutdown(wait=True)
        self._budgets.close()

    def _abandon(self, admitting: Future[Any]) -> None:
        ticket = None if admitting.cancelled() or admitting.exception() else admitting.result()
        if isinstance(ticket, Ticket):  # a draft holds nothing
            ticket.finish_reason = "error"  # it never reached the provider: nothing is charged
            self._booking.submit(self._budgets.settle, write_usage(ticket))  # `stop` ends these threads last


def _is_failure(error: Exception) -> bool:
    """Whether the version is to blame: not for a request that is at fault, or one too many."""
    return isinstance(error, UnsupportedModel) or not isinstance(error, InvalidInput | RateLimited)


def _join(deltas: Sequence[Delta]) -> Generation:
    """One whole answer of its pieces. What it used is told for all answers together, with the first."""
    return Generation(
        text="".join(delta.text for delta in deltas),
        finish_reason=deltas[-1].finish_reason or "stop",
        usage=Usage(prompt_tokens=0, completion_tokens=0),
        logprobs=tuple(token for delta in deltas for token in delta.logprobs),
        tool_calls=tuple(call for delta in deltas for call in delta.tool_calls),
    )
