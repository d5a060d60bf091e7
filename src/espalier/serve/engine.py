"""The engine: one base, any number of adapters, many requests at once; streams for serving, batches for evaluation.

A request is pinned to its adapter's digest when it is taken in, and answered under that digest to its end. One thread
runs steps (`start`); without it, `generate` runs them in the caller's. Knows no model name, key, budget or HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Self

import torch

from espalier.core.config import ServeConfig
from espalier.core.errors import Conflict, EspalierError, InvalidInput, NotFound, Unavailable
from espalier.core.ports import ChatRequest, Delta, EngineLoad, ReservedShare
from espalier.core.types import Generation, Message, SamplingSpec
from espalier.nn.adapters import read_adapter
from espalier.nn.base import LoadedBase
from espalier.nn.kernels.logits import survey
from espalier.nn.sample import choose_tokens, tell_logprobs
from espalier.serve.admission import check_admission, read_bounds
from espalier.serve.asked import check_sampling
from espalier.serve.mailbox import Mailbox
from espalier.serve.probe import check_runner, expected_logits
from espalier.serve.room import check_room
from espalier.serve.runner import Runner
from espalier.serve.scheduler import Claim, Plan, Scheduler, Work
from espalier.serve.shape import Shape, Shaper, is_plain, shown_tools
from espalier.serve.ticket import Tell, Ticket, Told, tell_together
from espalier.serve.work import NOBODYS

_log = logging.getLogger("espalier.serve")


class Engine:
    """Implements core.ports.ChatProvider; `functools.partial(engine.generate, adapter=...)` is a core.ports.Generate.

    The engine takes `base.model` over: do not train or call that model elsewhere.
    Raises UnsupportedModel when it could not answer exactly as the model itself does.
    """

    def __init__(self, base: LoadedBase, config: ServeConfig | None = None) -> None:
        config = config or ServeConfig()
        if config.threads > 0:
            torch.set_num_threads(config.threads)
        self.base = base
        self.context_tokens = min(config.max_context_tokens, base.context_tokens)
        expected = expected_logits(base)
        self._runner = Runner(base, config.max_batch, self.context_tokens)
        check_runner(self._runner, expected)
        sharing = config.sharing
        self._scheduler = Scheduler(
            config.max_batch,
            config.step_budget_tokens,
            weights=sharing.weights,
            slack=sharing.reserved_slack,
            wait_share=sharing.reserved_wait_share,
            batch_slack=sharing.batch_slack,
        )
        self._bounds = read_bounds(sharing)
        self._shaper = Shaper(base.tokenizer, base.eos_ids)
        self._patience_s = config.reader_patience_s
        self._tickets: dict[Work, Ticket] = {}
        self._closing: set[str] = set()  # adapters that take no new request
        self._change = threading.Condition()  # guards all of the above; told whenever a request comes or goes
        self._turn = threading.Lock()  # held by whoever runs a step
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._broken = False

    @property
    def answering(self) -> bool:
        """Whether a thread runs steps."""
        return self._thread is not None and not self._broken

    def start(self) -> Self:
        """Begin to answer in a thread of its own."""
        if not self.answering:
            self._stopping = self._broken = False
            self._thread = threading.Thread(target=self._work, name="espalier-engine", daemon=True)
            self._thread.start()
        return self

    def stop(self) -> None:
        """End after the step under way; answers not finished end as `cancelled`."""
        thread, self._thread = self._thread, None
        with self._change:
            self._stopping = True
            self._change.notify_all()
        if thread is not None:
            thread.join()

    def load_adapter(self, digest: str, folder: Path, *, require_origin: bool = True) -> None:
        """Make the adapter in `folder` available as `digest`, or raise what `read_adapter` raises."""
        with self._change:  # one that is on its way out is gone first
            self._change.wait_for(lambda: digest not in self._closing)
        if digest not in self._runner.bank:
            self._runner.bank.add(digest, read_adapter(folder, self.base, require_origin=require_origin))

    def unload_adapter(self, digest: str) -> None:
        """Take no new request for it, wait for those under way, let it go. Raises NotFound when it is not loaded."""
        with self._change:
            self._check_adapter(digest)
            self._closing.add(digest)
            self._change.wait_for(lambda: not self._scheduler.uses(digest))
        # The step under way may still hold a request that was just cancelled: not before it has run.
        with self._turn, self._change:
            self._runner.bank.remove(digest)
            self._scheduler.forget(digest)
            self._closing.discard(digest)
            self._change.notify_all()

    def list_adapters(self) -> list[str]:
        """Digests that may be asked."""
        return [digest for digest in self._runner.bank.digests() if digest not in self._closing]

    def memory_bytes(self) -> int:
        """What weights, cache (full) and adapters take."""
        return self._runner.memory_bytes()

    def count_prompt_tokens(self, request: ChatRequest) -> int:
        """Exact: the prompt as the model will read it."""
        self._shape(request)  # what cannot be answered is refused before anything is paid
        return len(self._encode(request))

    def hold(self, shares: Sequence[ReservedShare]) -> None:
        """From the next step on hold exactly `shares`. Raises InvalidInput when they leave no slot for anybody else."""
        slots = sum(share.slots for share in shares)
        if slots >= self._scheduler.slots:
            raise InvalidInput(
                f"{slots} slots cannot be reserved of {self._scheduler.slots}",
                hint="leave at least one for requests on demand, or raise serve.max_batch",
            )
        with self._change:
            self._scheduler.hold(shares)
            self._change.notify_all()

    def load(self) -> EngineLoad:
        """What runs and waits now."""
        with self._change:
            return self._scheduler.load()

    async def stream(self, request: ChatRequest) -> AsyncIterator[Delta]:
        """Answer one request in pieces; the last carries finish reason and usage. Closing the iterator cancels it.

        Raises InvalidInput (context, sampling), NotFound (base, adapter), Conflict (adapter going), Unavailable (not
        started, too many waiting), RateLimited (too many of this flow waiting, or for too long).
        """
        self._check_answering()
        if request.base not in ("", self.base.spec, self.base.base_digest):
            raise NotFound(f"base {request.base} is not loaded", hint=f"this engine holds {self.base.spec}")
        claim = Claim(request.flow, request.lane, request.reservation)
        self._check_queue(claim, request.sampling.n)  # before the prompt is read: to refuse must cost nothing
        shape = self._shape(request) if is_plain(request) else await asyncio.to_thread(self._shape, request)
        mailbox = Mailbox(self._patience_s)
        tickets: list[Ticket] = []
        tell = mailbox.put if request.sampling.n == 1 else tell_together(mailbox, tickets)
        prompt = self._encode(request)
        for number in range(request.sampling.n):
            tickets.append(
                self._make_ticket(
                    request.id, prompt, request.adapter, request.sampling, tell,
                    claim=claim, in_pieces=True, shape=shape, number=number,
                )
            )  # fmt: skip
        tickets[0].followers, tickets[0].work.followers = tickets[1:], len(tickets) - 1
        with self._change:  # while its form was compiled the engine may have ended, and would never come to it
            self._check_answering()
            self._submit(tickets[0])
        try:
            unfinished = len(tickets)
            while unfinished:
                delta = await mailbox.get()
                unfinished -= delta.finish_reason is not None
                yield delta
                if delta.finish_reason == "cancelled":
                    return
        finally:
            for ticket in tickets:
                self._cancel(ticket)

    def generate(
        self, batch: Sequence[Sequence[Message]], sampling: SamplingSpec, adapter: str = ""
    ) -> list[Generation]:
        """Answer a batch of conversations under one adapter digest (empty = the base): one Generation each, in order.

        With temperature, the i-th conversation draws from its own stream, seeded by (seed, i). Raises as `stream` does.
        """
        if sampling.n != 1:
            raise InvalidInput(f"n is {sampling.n}", hint="a batch gives one answer each: repeat the conversation")
        check_sampling(sampling, self.base.tokenizer.size)
        shape = self._shaper.shape_form(sampling)
        prompts = [self.base.tokenizer.encode_prompt(messages) for messages in batch]
        for prompt in prompts:
            check_room(len(prompt), sampling.max_tokens, self.context_tokens)
        tickets: dict[int, Ticket] = {}
        try:
            # Longest first: neighbours in a step are then of like length, and the batch ends on its short ones.
            for i in sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i)):
                seed = None if sampling.seed is None else sampling.seed * 1_000_003 + i
                own = sampling.model_copy(update={"seed": seed})
                ticket = self._make_ticket(f"batch-{i}", prompts[i], adapter, own, in_pieces=False, shape=shape)
                tickets[i] = self._submit(ticket)
            self._run_until(lambda: all(ticket.done for ticket in tickets.values()))
        finally:
            for ticket in tickets.values():
                self._cancel(ticket)
        return [tickets[i].generation() for i in range(len(prompts))]

    def _shape(self, request: ChatRequest) -> Shape:
        check_sampling(request.sampling, self.base.tokenizer.size)
        return self._shaper.shape(request)

    def _encode(self, request: ChatRequest) -> list[int]:
        return self.base.tokenizer.encode_prompt(request.messages, tools=shown_tools(request))

    def _make_ticket(
        self,
        name: str,
        prompt: list[int],
        adapter: str,
        sampling: SamplingSpec,
        tell: Tell | None = None,
        *,
        claim: Claim = NOBODYS,
        in_pieces: bool,
        shape: Shape,
        number: int = 0,
    ) -> Ticket:
        check_room(len(prompt), sampling.max_tokens, self.context_tokens)
        work = Work(name, adapter, list(prompt), len(prompt), len(prompt) + sampling.max_tokens, claim=claim)
        return Ticket(work, sampling, self.base, tell, in_pieces=in_pieces, shape=shape, number=number)

    def _submit(self, ticket: Ticket) -> Ticket:
        with self._change:
            self._check_adapter(ticket.work.adapter)
            self._enter(ticket)
            self._change.notify_all()
        return ticket

    def _enter(self, ticket: Ticket, *, first: bool = False) -> None:
        self._tickets[ticket.work] = ticket
        self._scheduler.add(ticket.work, first=first)

    def _enter_followers(self, ticket: Ticket) -> None:
        """The prompt is computed: theirs is copied. Those who came after them wait behind them."""
        followers, ticket.followers, ticket.work.followers = ticket.followers, [], 0
        for follower in reversed(followers):
            self._enter(follower, first=True)

    def _check_answering(self) -> None:
        if not self.answering:
            raise Unavailable("the engine is not running", hint="ask again when it is, or ask another process")

    def _check_queue(self, claim: Claim, answers: int) -> None:
        with self._change:
            crowd = self._scheduler.crowd(claim)
            tokens_per_s = self._scheduler.cost.tokens_per_s
        check_admission(crowd, self._bounds[claim.lane], tokens_per_s, answers)

    def _check_adapter(self, adapter: str) -> None:
        if adapter in self._closing:
            raise Conflict(f"adapter {adapter[:12]} is being unloaded", hint="ask the version that replaces it")
        if adapter and adapter not in self._runner.bank:
            raise NotFound(f"adapter {adapter[:12]} is not loaded", hint="load it before asking it")

    def _cancel(self, ticket: Ticket) -> None:
        with self._change:
            if self._tickets.pop(ticket.work, None) is not None:
                self._scheduler.cancel(ticket.work)
                _tell(ticket, lambda: ticket.end("cancelled"))
                self._change.notify_all()

    def _run_until(self, done: Callable[[], bool]) -> None:
        """Wait for the engine's thread, or, where there is none, be it."""
        while not done():
            if self.answering:
                with self._change:
                    self._change.wait_for(lambda: done() or not self.answering)
            else:
                self._step()

    def _work(self) -> None:
        try:
            while not self._stopping:
                if not self._step():
                    with self._change:
                        self._change.wait_for(lambda: self._stopping or self._scheduler.busy)
        finally:
            with self._change:
                self._broken = not self._stopping  # a bug ended it, not `stop`: nobody may wait for it any more
                for ticket in list(self._tickets.values()):
                    self._cancel(ticket)
                self._scheduler.plan()  # lets go of the slots of what was just cancelled

    def _step(self) -> bool:
        """Run one step; False when there was nothing to do."""
        with self._turn:
            with self._change:
                began_s = time.perf_counter()
                plan = self._scheduler.plan()
                if not plan.chunks:
                    self._change.notify_all()  # the plan may have let go of the last cancelled ones
                    return False
            faults: dict[int, Exception] = {}
            try:
                deciding, logits = self._runner.run(plan)
                tickets = [self._tickets.get(chunk.work) for chunk in deciding]
                best, sound = survey(logits)
                samplers = [ticket.sampler if ticket else None for ticket in tickets]
                tokens = choose_tokens(logits, samplers, best, faults)
                told = tell_logprobs(logits, tokens, [ticket.logprobs if ticket else None for ticket in tickets])
            except BaseException as error:
                if not self._survive(plan, error):
                    raise
                return True
            with self._change:
                self._scheduler.commit(plan, time.perf_counter() - began_s)
                for row, (chunk, ticket, whole) in enumerate(zip(deciding, tickets, sound, strict=True)):
                    if not whole:
                        self._drop(chunk.work)
                    elif ticket is not None and not ticket.work.cancelled:
                        self._enter_followers(ticket)
                        _take(ticket, tokens[row], told[row], faults.get(row))
                        if ticket.done:
                            self._scheduler.release(ticket.work)
                            del self._tickets[ticket.work]
                self._change.notify_all()
            return True

    def _drop(self, work: Work) -> None:
        """End a request whose numbers overflowed, and clear its slot; its neighbours in the batch are not touched."""
        self._runner.scrub(work.slot)
        self._scheduler.forget(work.adapter)
        self._scheduler.release(work)
        ticket = self._tickets.pop(work, None)
        if ticket is not None:
            ticket.fail(
                EspalierError("the model's numbers overflowed", hint="its adapter may have diverged in training")
            )

    def _survive(self, plan: Plan, error: BaseException) -> bool:
        """A step broke off: which slots were written is unknown, so all are forgotten. Whether the engine goes on.

        It does when it was out of memory, or a kernel failed: the step's requests end with an error. It does not after
        a bug, nor on a device that failed, which computes nothing any more.
        """
        with self._change:
            self._scheduler.distrust()
            if not isinstance(error, RuntimeError) or isinstance(error, torch.AcceleratorError):
                return False
            for chunk in plan.chunks:
                self._scheduler.release(chunk.work)
                ticket = self._tickets.pop(chunk.work, None)
                if ticket is not None:
                    ticket.fail(
                        EspalierError(
                            f"the engine could not compute this step: {error}",
                            hint="ask again; if it is memory that lacks, lower serve.max_batch",
                        )
                    )
            self._change.notify_all()
            return True


def _take(ticket: Ticket, token: int, told: Told | None, fault: Exception | None) -> None:
    """Give an answer its next token, or the fault that kept it from being chosen."""

    def add() -> None:
        if fault is not None:
            raise fault
        ticket.add(token, told)

    _tell(ticket, add)


def _tell(ticket: Ticket, tell: Callable[[], object]) -> None:
    """What goes wrong with one answer ends that one: the others of a step are no worse for it."""
    try:
        tell()
    except Exception as error:  # noqa: BLE001 - the boundary between one answer and all others
        _log.error("an answer could not be followed", exc_info=error)
        what = type(error).__name__  # its words may hold a user's
        ticket.fail(EspalierError(f"this answer could not be followed ({what})", hint="see the server's log"))
