"""One batch, from its input to its results: check every line, ask what is not done, publish.

However a process dies, the next goes on where the journal ends, and no line is lost, doubled or charged twice:

    killed before the answer was settled     the reservation waits under the line's request id, and is taken up again
    killed after that, before the journal    the line is asked again; its usage row is there, so nothing more is charged
    killed after the journal                 the line is done

A line that was reserved costs what it was reserved at, whatever the price is by then (see gateway/budget.py).

The second answer is the first one's equal: a line's seed, where it draws at all and names none, comes of its request
id. Knows no queue: whoever holds the lease calls `run`, and `halt` to end it early.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

from espalier.core.config import BatchConfig
from espalier.core.errors import BudgetExceeded, Conflict, EspalierError, InvalidInput, RateLimited, StorageFull
from espalier.core.errors import Unavailable as Busy
from espalier.core.ids import now_ms
from espalier.core.types import Completion
from espalier.gateway.batch.check import Check
from espalier.gateway.batch.journal import Entry, Journal
from espalier.gateway.batch.publish import Results, publish
from espalier.gateway.batch.records import Batch, Batches, Progress
from espalier.gateway.batch.shapes import make_shape
from espalier.gateway.batch.source import Source
from espalier.gateway.desk import Desk
from espalier.gateway.ticket import Ticket
from espalier.store.store import Store
from espalier.wire.batchline import Asked

Why = Literal["", "stop", "cancel", "expire", "revoke", "fail"]  # it is to end early: `stop` = for now
Result = TypeVar("Result")

_ADMITTING_THREADS = 2  # its own, so that nobody who waits for an answer waits behind a batch's admissions
_TRIES = 3  # of a line that fails for a reason which may pass
_PAUSES_S = (0.25, 10.0)  # the first between two tries, and the longest
_DRAIN_S = 60.0  # how long lines under way may go on when the batch is to end
_OWED_S = 600.0  # how long an ending batch waits for answers that were charged for and lost
_log = logging.getLogger("espalier.gateway")


class Work:
    """One batch being worked on by this process; it holds the journal's lock from `open` to `close`."""

    def __init__(self, store: Store, desk: Desk, batch: Batch, config: BatchConfig, most_line_bytes: int) -> None:
        self.batch = batch
        self.why: Why = ""
        self._store, self._desk, self._config = store, desk, config
        self._most_line_bytes = most_line_bytes
        self._batches = Batches(store)
        self._folder: Path = self._batches.folder_of(batch.id)
        self._shape = make_shape(batch.shape, batch.model)
        self._halted = asyncio.Event()
        self._admitting: set[asyncio.Future[None]] = set()  # each done once what became of it is known here
        self._holding: set[str] = set()  # lines with a reservation, until they are answered or refused
        self._admitted = 0  # how often a line was
        self._freed = asyncio.Event()  # one of those has ended: its reservation may be of use to another
        self._fresh: list[Entry] = []
        self._writing: asyncio.Future[None] | None = None
        self._threads = ThreadPoolExecutor(_ADMITTING_THREADS, "batch-admit")
        self._started_ms = now_ms()
        self._finalizing_ms = 0
        self._done_before = 0

    def halt(self, why: Why) -> None:
        """End soon. `stop` drops what is under way, to be resumed; the others let it finish, then publish."""
        if self.why == "" or (why == "stop" and self.why != why):
            self.why = why
            self._halted.set()

    async def run(self) -> Results | None:
        """The results, or None when it was stopped. Raises InvalidInput (no batch file), Conflict (another works on
        it), StorageFull, NotFound and DigestMismatch (the input)."""
        await asyncio.to_thread(self._open)
        try:
            if not self._journal.checked and not self.why:
                await asyncio.to_thread(self._check.run, lambda: bool(self.why), self._note)
            await self._ask_all()
            if self.why == "stop":
                return None
            self._finalizing_ms = now_ms()
            return await asyncio.to_thread(self._publish)
        finally:
            await asyncio.to_thread(self._close)

    @property
    def progress(self) -> Progress:
        """How far it has come."""
        counts = self._journal.counts
        return Progress(
            phase="finalizing" if self._finalizing_ms else "in_progress" if self._journal.checked else "validating",
            total=len(self._source),
            completed=counts.completed,
            failed=counts.failed,
            prompt_tokens=counts.prompt_tokens,
            completion_tokens=counts.completion_tokens,
            started_ms=self._started_ms,
            done_before=self._done_before,
            at_ms=now_ms(),
            finalizing_ms=self._finalizing_ms,
        )

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        source = self._folder / "input.jsonl"
        if not source.exists():
            self._store.blobs.fetch(self.batch.source, source)
        self._source = Source(source)
        lines = len(self._source)
        if not 0 < lines <= self._config.max_lines:
            self._source.close()
            size = f"{lines:,} lines" if lines else "no line"
            raise InvalidInput(f"{self.batch.name} has {size}", hint=f"1 to {self._config.max_lines:,} make a batch")
        self._journal = Journal(self._folder / "journal", lines, f"{self.batch.id} {self.batch.source}")
        self._done_before = self._journal.counts.done
        self._check = Check(
            self.batch, self._shape, self._source, self._journal, self._desk, self._most_line_bytes
        )  # fmt: skip
        self._note()

    def _close(self) -> None:
        self._threads.shutdown(wait=True)
        self._journal.close()
        self._source.close()

    def _note(self) -> None:
        self._batches.note(self.batch.id, self.progress)

    async def _ask_all(self) -> None:
        """Ask every line that is not done; when the batch ends early, those that were charged for all the same."""
        await self._ask_each(self._journal.open_lines() if self._journal.checked else iter(()))
        if self.why not in ("", "stop"):
            owed = await asyncio.to_thread(self._find_owed)
            if owed:
                await self._ask_each(iter(owed), regardless=True)

    async def _ask_each(self, lines: Iterator[int], *, regardless: bool = False) -> None:
        askers = [
            asyncio.ensure_future(self._ask_some(lines, regardless=regardless))
            for _ in range(self._config.max_in_flight)
        ]
        writing = asyncio.ensure_future(self._write_steadily())
        halting = asyncio.ensure_future(self._wait_for_halt(regardless=regardless))
        asking = asyncio.gather(*askers)
        tasks = (asking, writing, halting)
        try:
            timeout = _OWED_S if regardless else None
            await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        # What is ready is put on disk even when it was stopped; an error of the asking or the writing comes first.
        for task in (writing, asking):
            error = None if task.cancelled() else task.exception()
            if isinstance(error, Exception):  # a gathering that was cancelled holds a CancelledError, which is none
                raise error
        await self._write()

    async def _wait_for_halt(self, *, regardless: bool) -> None:
        """Return when what is under way is to be dropped."""
        while self.why != "stop":
            await self._halted.wait()
            self._halted.clear()
            if self.why not in ("", "stop") and not regardless:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._halted.wait(), _DRAIN_S)
                return

    async def _ask_some(self, lines: Iterator[int], *, regardless: bool) -> None:
        for number in lines:
            if self.why and not regardless:
                return
            entry = None if self._journal.is_done(number) else await self._ask(number, regardless=regardless)
            if entry is not None:
                self._fresh.append(entry)

    async def _ask(self, number: int, *, regardless: bool) -> Entry | None:
        """The line's answer or its refusal, under its one request id, however often it takes; None when the batch is
        to end and it would have to be asked again."""
        id = self.batch.request_id(number)
        try:
            return await self._ask_until_told(number, id, self._check.decode(number), regardless=regardless)
        finally:
            if id in self._holding:
                self._holding.discard(id)
                self._freed.set()

    async def _ask_until_told(self, number: int, id: str, asked: Asked, *, regardless: bool) -> Entry | None:
        failures, pause_s = 0, _PAUSES_S[0]
        while True:
            admitted, others = self._admitted, len(self._holding - {id})
            try:
                return self._answer_entry(number, asked, await self._complete(id, asked))
            except StorageFull:
                raise
            except EspalierError as error:
                passing = isinstance(error, RateLimited | Busy)
                if self.why and passing and not regardless:
                    return None
                if isinstance(error, BudgetExceeded):
                    if await self._wait_for_room(id) or others or self._admitted != admitted:
                        continue
                elif passing or ((isinstance(error, Conflict) or error.http_status >= 500) and failures < _TRIES):
                    failures += not passing
                    await asyncio.sleep(error.retry_after_s or pause_s)
                    pause_s = min(2 * pause_s, _PAUSES_S[1])
                    continue
                await self._off_loop(self._desk.release_line, id)
                refused = replace(asked, fault=error, fault_code="")
                return Entry("-", number, self._shape.refuse(id, refused, number))

    async def _complete(self, id: str, asked: Asked) -> Completion:
        """One try. Raises what the desk raises; a bug of the provider's as EspalierError."""
        if asked.call is None:
            raise asked.fault or InvalidInput("this line is no request")
        pin = self._journal.pins[asked.call.model]
        call = asked.call.model_copy(update={"seed": asked.call.seed if asked.call.seed is not None else _seed_of(id)})
        admit = functools.partial(self._desk.admit, lane="batch", pinned=pin)
        told = asyncio.get_running_loop().create_future()
        self._admitting.add(told)
        try:
            ticket: Ticket = await self._off_loop(admit, call, self.batch.key, id)
            self._admitted += 1
            self._holding.add(id)
        finally:
            self._admitting.discard(told)
            told.set_result(None)
        try:
            return await self._desk.complete(ticket)
        except EspalierError:
            raise
        except Exception as error:
            _log.exception("request %s failed", id)
            raise EspalierError("something went wrong inside", hint=f"see {id} in the log") from error

    async def _wait_for_room(self, id: str) -> bool:
        """Whether other lines hold some of the budget that refused this one: more than they will cost. Returns then
        when one of them has ended."""
        if self._admitting:  # one of them may have taken the last of it, and is not known here yet
            await asyncio.wait(set(self._admitting))
        if not self._holding - {id}:
            return False
        self._freed.clear()
        await self._freed.wait()
        return True

    def _answer_entry(self, number: int, asked: Asked, completion: Completion) -> Entry:
        id, usage = self.batch.request_id(number), completion.generation.usage
        text = self._shape.answer(id, asked, completion, self.batch.created_ms // 1000)
        return Entry("+", number, text, usage.prompt_tokens, usage.completion_tokens)

    async def _write_steadily(self) -> None:
        while True:
            await asyncio.sleep(self._config.sync_every_s)
            await self._write()

    async def _write(self) -> None:
        """Put down what is ready. One group at a time, and shielded: who is cancelled leaves none half-way."""
        if self._writing is not None:
            await asyncio.shield(self._writing)
        fresh, self._fresh = self._fresh, []
        if fresh:
            self._writing = asyncio.ensure_future(asyncio.to_thread(self._put_down, fresh))
            await asyncio.shield(self._writing)

    def _put_down(self, fresh: list[Entry]) -> None:
        self._journal.add(fresh)
        self._note()

    def _find_owed(self) -> list[int]:
        """Lines that were charged for, their answer lost when a process was killed."""
        numbers = (int(request.rpartition("-")[2]) for request in self._store.ledger.charged(f"{self.batch.id}-"))
        return [number for number in numbers if not self._journal.is_done(number)]

    def _publish(self) -> Results:
        self._note()
        self._threads.shutdown(wait=True)  # no admission can reserve any more
        self._desk.release_lines(self.batch.id)
        return publish(
            self.batch, self._shape, self._journal, self._check.decode, self._folder, self._store.blobs, self.why
        )  # fmt: skip

    async def _off_loop(self, call: Callable[..., Result], *arguments: object) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, functools.partial(call, *arguments))


def _seed_of(id: str) -> int:
    """A seed that is the line's own, the same whenever it is asked."""
    return int.from_bytes(hashlib.sha256(id.encode()).digest()[:7], "big")
