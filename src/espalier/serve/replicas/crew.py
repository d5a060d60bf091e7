"""`Crew`: the replicas of one base. Who is there, who takes which request, and what becomes of it when one dies.

Coroutines, `dispatch`, `cancel` and `scale` run on the engine's loop alone; what merely tells may be called anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import os
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.core.errors import Conflict, EspalierError, InvalidInput, NotFound, Unavailable
from espalier.core.ports import ChatRequest, Delta, EngineLoad, ReservedShare
from espalier.serve.replicas.dispatch import choose_replica
from espalier.serve.replicas.frames import Frame, encode_request
from espalier.serve.replicas.process import Flight, Replica, Tell

if TYPE_CHECKING:
    from espalier.core.config import ServeConfig

_LOOK_S = 0.5
_SILENT_S = 60.0  # a replica that says nothing for so long is ended: its process may live, but it answers nobody
_MOST_TRIES = 3
_PATIENCE_S = 120.0  # a request waits so long for a replica to come (back)
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0  # before a dead replica is replaced; doubled each time
_NEEDED_S = 30.0  # between the counting of a prompt and its request lies no more: so long the pool holds it
_SOUND_S = 60.0  # a replica that lived so long did not die of what the last ones died of
_CHARACTERS_PER_TOKEN = 3
_log = logging.getLogger("espalier.serve")


class Crew:
    """wanted: how many to be now; most: how many there may ever be, among whom the machine's threads are shared."""

    def __init__(self, base: str, place: str, serve: ServeConfig, *, wanted: int, most: int) -> None:
        self.wanted = wanted
        self._base, self._place, self._most = base, place, most
        self._threads = max(1, (serve.threads or len(os.sched_getaffinity(0))) // max(most, wanted))
        self._serve = serve.model_copy(update={"threads": self._threads})
        self._replicas: list[Replica] = []
        self._numbers = itertools.count(1)
        self._adapters: dict[str, Path] = {}
        self._closing: set[str] = set()
        self._shares: Sequence[ReservedShare] = ()
        self._holding: frozenset[int] = frozenset()  # replicas among which the shares were parted last
        self._parting = asyncio.Lock()
        self._waiting: list[Flight] = []
        self._callers = 0  # who waits for a replica with something that is no request yet
        self._needed_until_s = 0.0  # one stays so long: who has had a prompt counted is about to ask
        self._tasks: set[asyncio.Task[None]] = set()
        self._deaths = 0
        self._resting_until_s = 0.0
        self._change = asyncio.Event()  # something happened: look again
        self._closed = False

    async def open(self) -> None:
        """Returns when the first replica answers, also after `close`. Raises what its loading raised."""
        self._closed, self._deaths, self._resting_until_s = False, 0, 0.0
        # The loop may be another than before.
        self._replicas, self._change, self._parting = [], asyncio.Event(), asyncio.Lock()
        first, others = self._add(), [self._add() for _ in range(self.wanted - 1)]
        for replica in others:
            self._spawn(self._grow(replica))
        try:
            await self._prepare(first)
        except BaseException:
            self._closed = True
            raise
        self._spawn(self._look_after())

    async def close(self) -> None:
        """End everything; requests under way end as `cancelled`."""
        self._closed = True
        flights = [*self._waiting, *(f for replica in self._replicas for f in replica.flights.values())]
        self._waiting.clear()
        for replica in self._replicas:
            replica.flights.clear()
        for flight in flights:
            self._finish(flight, Delta("", "cancelled"))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(replica.close() for replica in list(self._replicas)))

    def make_flight(self, request: ChatRequest, tell: Tell) -> Flight:
        characters = sum(len(message.content) for message in request.messages)
        answers = request.sampling.max_tokens * request.sampling.n
        return Flight(request, characters // _CHARACTERS_PER_TOKEN + answers, tell, time.monotonic())

    def dispatch(self, flight: Flight) -> None:
        """Put a request to a replica, or keep it until there is one."""
        if self._closed:
            self._finish(flight, Delta("", "cancelled"))
            return
        slack = self._serve.max_context_tokens * max(1, self._serve.max_batch // 8)
        chosen = choose_replica(self._list_able(flight.request.reservation), flight.request, slack)
        if chosen is None:
            self._waiting.append(flight)
            self._change.set()  # so that one is started where there is none
            return
        flight.tries += 1
        try:
            chosen.ask(flight)
        except EspalierError as refusal:  # no line can carry it
            self._finish(flight, refusal)

    def cancel(self, flight: Flight) -> None:
        """Its asker has left."""
        flight.over = True
        if flight in self._waiting:
            self._waiting.remove(flight)
        for replica in self._replicas:
            replica.cancel(flight)
        self._change.set()

    def scale(self, replicas: int) -> None:
        self.wanted = max(0, min(replicas, self._most))
        self._change.set()

    async def load_adapter(self, digest: str, folder: Path) -> None:
        while digest in self._closing:  # one on its way out is gone first
            await self._changed()
        if digest in self._adapters:
            return
        if not self._ready():
            await self._wait_for_one()
        self._adapters[digest] = folder
        teaching = (self._teach(replica, digest, folder) for replica in self._ready())
        try:
            told = await asyncio.gather(*teaching, return_exceptions=True)
        except BaseException:  # the crew is closing
            del self._adapters[digest]
            raise
        refusals = [each for each in told if isinstance(each, BaseException) and not isinstance(each, Unavailable)]
        if refusals:  # one that died does not count: the one that replaces it is taught anew
            self._closing.add(digest)
            await self._let_go(digest)
            raise refusals[0]

    async def unload_adapter(self, digest: str) -> None:
        self.check_adapter(digest)
        self._closing.add(digest)
        try:
            while any(flight.request.adapter == digest for flight in self._flights()):
                await self._changed()
        except BaseException:
            self._closing.discard(digest)
            raise
        await self._let_go(digest)

    def check_adapter(self, digest: str) -> None:
        """Raises NotFound for one that is not loaded, Conflict for one that is going."""
        if digest in self._closing:
            raise Conflict(f"adapter {digest[:12]} is being unloaded", hint="ask the version that replaces it")
        if digest and digest not in self._adapters:
            raise NotFound(f"adapter {digest[:12]} is not loaded", hint="load it before asking it")

    async def count_prompt_tokens(self, request: ChatRequest) -> int:
        for _ in range(_MOST_TRIES):
            replica = min(self._ready(), key=lambda replica: replica.tokens, default=None)
            replica = replica or await self._wait_for_one()
            with contextlib.suppress(Unavailable):
                return int(await replica.call("count_prompt_tokens", encode_request(request)))
        raise Unavailable("the replicas keep dying", hint="see the server's log")

    async def hold(self, shares: Sequence[ReservedShare]) -> None:
        before, self._shares = self._shares, shares
        try:
            await self._share_out()
        except InvalidInput:
            self._shares, self._holding = before, frozenset()  # the first of them may hold the new ones
            raise

    def list_adapters(self) -> list[str]:
        return sorted(set(self._adapters) - self._closing)

    def list_processes(self) -> list[int]:
        return [replica.pid for replica in self._ready()]

    def memory_bytes(self) -> int:
        return sum(replica.memory_bytes for replica in list(self._replicas))

    def load(self) -> EngineLoad:
        """Requests as they stand now; how long the longest waits for a slot, as the replicas said last."""
        now_s, waiting, slots = time.monotonic(), list(self._waiting), self._serve.max_batch
        there = [replica for replica in list(self._replicas) if replica.state in ("ready", "draining")]
        flights = [len(replica.flights) for replica in there]
        queues_s = [*(replica.load.queue_s for replica in there), *(now_s - flight.since_s for flight in waiting)]
        return EngineLoad(
            running=sum(min(count, slots) for count in flights),
            waiting=sum(max(0, count - slots) for count in flights) + len(waiting),
            tokens_in_flight=sum(replica.tokens for replica in there) + sum(flight.tokens for flight in waiting),
            queue_s=max(queues_s, default=0.0),
            slots=slots * len(there),
        )

    def _ready(self) -> list[Replica]:
        return [replica for replica in list(self._replicas) if replica.state == "ready"]

    def _list_able(self, reservation: str) -> list[Replica]:
        """The replicas that may take a request: of a reservation, those with the fewest of its requests, since each
        holds an equal part of it."""
        ready = self._ready()
        if not reservation:
            return ready
        counts = [sum(each.request.reservation == reservation for each in r.flights.values()) for r in ready]
        return [replica for replica, count in zip(ready, counts, strict=True) if count == min(counts)]

    def _flights(self) -> list[Flight]:
        return [*self._waiting, *(flight for replica in self._replicas for flight in replica.flights.values())]

    def _add(self) -> Replica:
        replica = Replica(next(self._numbers), self._lose)
        self._replicas.append(replica)
        return replica

    async def _prepare(self, replica: Replica) -> None:
        """Start it, teach it what was loaded meanwhile, let it take requests."""
        try:
            await replica.open(self._threads, self._describe())
            while missing := [digest for digest in self._adapters if digest not in replica.adapters]:
                await self._teach(replica, missing[0], self._adapters[missing[0]])
        except BaseException:
            if replica in self._replicas:
                self._replicas.remove(replica)
            replica.state = "gone"
            await replica.close()
            raise
        replica.state, replica.began_s = "ready", time.monotonic()
        await self._share_out()
        _log.info("%s: replica %d is ready (process %d)", self._base, replica.number, replica.pid)
        self._change.set()

    def _describe(self) -> Frame:
        serve = self._serve.model_dump(mode="json", exclude={"engines"})
        return {"base": self._base, "place": self._place, "serve": serve, "adapters": []}

    async def _teach(self, replica: Replica, digest: str, folder: Path) -> None:
        """Raises what loading it there raises, Unavailable when the replica dies of it."""
        async with replica.teaching[digest]:
            if digest in self._adapters:  # else it was let go meanwhile
                await replica.call("load_adapter", digest, str(folder))
                replica.adapters.add(digest)
                replica.memory_bytes = await replica.call("memory_bytes")

    async def _let_go(self, digest: str) -> None:
        """Nobody uses it, and nobody may: let it go everywhere, also where it is being loaded at this moment."""
        self._adapters.pop(digest, None)
        try:
            await asyncio.gather(*(self._forget(replica, digest) for replica in list(self._replicas)))
        finally:
            self._closing.discard(digest)
            self._change.set()

    async def _forget(self, replica: Replica, digest: str) -> None:
        async with replica.teaching[digest]:
            if digest in replica.adapters:
                with contextlib.suppress(Unavailable, NotFound):
                    await replica.call("unload_adapter", digest)
                    replica.memory_bytes = await replica.call("memory_bytes")
                replica.adapters.discard(digest)

    async def _share_out(self) -> None:
        """Each replica that takes requests holds its part of what is reserved."""
        async with self._parting:  # or an older division could arrive last
            ready = self._ready()
            self._holding = frozenset(replica.number for replica in ready)
            parts = [[s.name, math.ceil(s.slots / len(ready)), math.ceil(s.tokens_per_minute / len(ready))]
                     for s in self._shares] if ready else []  # fmt: skip
            for replica in ready:
                with contextlib.suppress(Unavailable):
                    await replica.call("hold", parts)

    async def _share_out_anew(self) -> None:
        """One died, or goes: what it held is the others' to hold."""
        try:
            await self._share_out()
        except EspalierError as error:
            _log.error("%s: what is reserved cannot be held: %s", self._base, error)

    async def _look_after(self) -> None:
        """Until it is closed: replace the dead, grow, shrink, listen to how busy each is."""
        heard_s = 0.0
        while not self._closed:
            await self._changed()
            now_s = time.monotonic()
            self._reconcile(now_s)
            if now_s - heard_s >= _LOOK_S:
                heard_s = now_s
                for replica in [r for r in self._replicas if r.state in ("ready", "draining") and not r.listening]:
                    self._spawn(self._listen(replica))

    def _reconcile(self, now_s: float) -> None:
        there = [replica for replica in self._replicas if replica.state in ("starting", "ready")]
        needed = self._waiting or self._callers or now_s < self._needed_until_s
        target = max(self.wanted, 1 if needed else 0)
        if len(there) < target and now_s >= self._resting_until_s:
            for _ in range(target - len(there)):
                self._spawn(self._grow(self._add()))
        ready = sorted(self._ready(), key=lambda replica: replica.tokens)
        for replica in ready[: max(0, len(ready) - target)]:  # one that starts is no reason to lose one that answers
            replica.state = "draining"
        if self._shares and self._holding != {replica.number for replica in self._ready()}:
            self._spawn(self._share_out_anew())
        for replica in [r for r in self._replicas if r.state == "draining" and not r.flights]:
            self._replicas.remove(replica)
            self._spawn(replica.close())
        waiting, self._waiting = self._waiting, []
        for flight in waiting:
            if now_s - flight.since_s > _PATIENCE_S:
                self._finish(flight, Unavailable(f"no replica of {self._base} answers", hint="see the server's log"))
            else:
                self.dispatch(flight)

    async def _grow(self, replica: Replica) -> None:
        try:
            await self._prepare(replica)
        except Exception as error:  # noqa: BLE001 - tried again later; the log says why it did not come
            self._rest(replica)
            _log.warning("%s: replica %d could not be started: %s", self._base, replica.number, error)

    async def _listen(self, replica: Replica) -> None:
        replica.listening = True
        try:
            said = await asyncio.wait_for(replica.call("state"), _SILENT_S)
            replica.load = EngineLoad(**said)
        except Unavailable:
            return  # it died, and was noticed
        except TimeoutError:
            _log.error("%s: replica %d says nothing, it is ended", self._base, replica.number)
            replica.kill()
        finally:
            replica.listening = False

    def _lose(self, replica: Replica) -> None:
        """A line ended: put its requests to others, or tell them."""
        wanted = replica in self._replicas and replica.began_s > 0 and not self._closed
        if replica in self._replicas:
            self._replicas.remove(replica)
        flights, replica.flights = list(replica.flights.values()), {}
        if wanted:
            self._rest(replica)
            _log.warning("%s: replica %d (process %d) died", self._base, replica.number, replica.pid)
        for flight in flights:
            if not flight.told and flight.tries < _MOST_TRIES:
                self.dispatch(flight)
            else:
                self._finish(flight, Unavailable("the replica died in the middle of the answer", hint="ask again"))
        if not self._closed:  # `close` does it itself
            self._spawn(replica.close())
        self._change.set()

    def _rest(self, replica: Replica) -> None:
        """The more die young, the longer until the next is started."""
        now_s = time.monotonic()
        lived = replica.began_s > 0 and now_s - replica.began_s > _SOUND_S
        self._deaths = 0 if lived else self._deaths + 1
        wait_s = _FIRST_WAIT_S * 2 ** min(self._deaths, 10)
        self._resting_until_s = now_s + min(wait_s, _LONGEST_WAIT_S)

    def _finish(self, flight: Flight, said: Delta | EspalierError) -> None:
        flight.over = True
        flight.tell(said)
        flight.tell(None)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _changed(self) -> None:
        """Wait until something happened, or a little."""
        self._change.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._change.wait(), _LOOK_S)

    async def _wait_for_one(self) -> Replica:
        """One that answers; where there is none, one is started."""
        deadline_s = time.monotonic() + _PATIENCE_S
        self._callers += 1
        self._change.set()
        try:
            while time.monotonic() < deadline_s and not self._closed:
                if ready := self._ready():
                    self._needed_until_s = time.monotonic() + _NEEDED_S
                    return min(ready, key=lambda replica: replica.tokens)
                await asyncio.sleep(_LOOK_S / 5)
        finally:
            self._callers -= 1
        raise Unavailable(f"no replica of {self._base} answers", hint="see the server's log")
