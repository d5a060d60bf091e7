"""Things that take memory: loaded when first needed, pinned while in use, let go when others need the room.

Each is loaded once however many ask for it at the same time, and nothing waits for another's loading. Whoever has not
been used longest goes first; what is in use never goes. Knows not what it holds: bases and adapters are kept alike.
Imports no torch.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from espalier.core.errors import EspalierError, InvalidInput, Unavailable

Thing = TypeVar("Thing")
State = Literal["waiting", "loading", "ready", "leaving"]

_log = logging.getLogger("espalier.serve")


@dataclass(slots=True, eq=False)
class _Resident(Generic[Thing]):
    name: str
    size_bytes: int
    used_s: float
    loaded: Future[Thing] = field(default_factory=Future)
    state: State = "waiting"
    pins: int = 0
    unwanted: bool = False  # goes as soon as nobody uses it
    going: bool = False  # it is being let go at this moment
    gone: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class Resident(Generic[Thing]):
    """One of them as it stands now; `thing` is None unless it is ready."""

    name: str
    state: State
    size_bytes: int
    pins: int
    idle_s: float  # 0 while in use
    thing: Thing | None


class Lease(Generic[Thing]):
    """A pin on one thing: while it is held, the thing stays. `loaded` is done once it is there, or cannot be."""

    def __init__(self, loaded: Future[Thing], give_back: Callable[[], None]) -> None:
        self.loaded = loaded
        self._give_back: Callable[[], None] | None = give_back

    def release(self) -> None:
        """Let go; the second time does nothing."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            self.loaded = Future()  # a lease that lies about keeps nothing alive
            give_back()


class Residency(Generic[Thing]):
    """Thread-safe. `load` and `unload` run in threads of its own and may block; `load` tells the thing and its bytes.

    budget_bytes, most: what all together may take, and how many there may be; 0 = no limit.
    keeps: names that stay when nobody uses them. freed: called when one is gone and nothing here refers to it any more.
    patient: something that does not fit because all others are in use waits; else its future fails with Unavailable.
    """

    def __init__(
        self,
        noun: str,
        load: Callable[[str], tuple[Thing, int]],
        unload: Callable[[str, Thing], None],
        *,
        budget_bytes: int = 0,
        most: int = 0,
        patient: bool = False,
        keeps: Callable[[str], bool] = lambda name: False,
        freed: Callable[[], None] = lambda: None,
        threads: int = 4,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.noun, self.budget_bytes, self.most = noun, budget_bytes, most
        self._load, self._unload, self._keeps, self._freed = load, unload, keeps, freed
        self._patient, self._clock = patient, clock
        self._lock = threading.RLock()
        self._present: dict[str, _Resident[Thing]] = {}
        self._leaving: list[_Resident[Thing]] = []
        self._threads = ThreadPoolExecutor(threads, f"{noun}-loading")
        self._closed = False

    def acquire(self, name: str, estimate: Callable[[], int] = lambda: 0) -> Lease[Thing]:
        """Pin `name`, loading it if need be; returns at once. `estimate` tells what it will take, if it is not there.

        Raises what `estimate` raises, InvalidInput for what is larger than the whole budget, Unavailable when closed.
        """
        with self._lock:
            lease = self._pin(name)
        if lease is not None:
            return lease
        size_bytes = estimate()
        self._check_size(name, size_bytes)
        with self._lock:
            if name not in self._present:
                resident: _Resident[Thing] = _Resident(name, size_bytes, self._clock())
                resident.loaded.set_running_or_notify_cancel()  # from here on no waiter's leaving can cancel it
                self._present[name] = resident
            lease = self._pin(name)
            self._advance()
        if lease is None:
            raise Unavailable(f"{self.noun} {name} is being let go", hint="ask again")
        return lease

    def evict(self, name: str) -> threading.Event | None:
        """Let `name` go once nobody uses it; who asks for it meanwhile waits, and has it loaded anew.

        Returns the event of its being gone; None when it is not there.
        """
        with self._lock:
            resident = self._present.get(name)
            if resident is None or resident.state == "waiting":
                return None
            resident.unwanted = True
            if resident.state == "ready":
                self._part(resident)
            return resident.gone

    def evict_idle(self, idle_s: float) -> list[str]:
        """Let go what nobody has used for so long; returns the names."""
        now_s = self._clock()
        with self._lock:
            idle = [r for r in self._idle() if now_s - r.used_s >= idle_s]
            for resident in idle:
                self._part(resident)
        return [resident.name for resident in idle]

    def resize(self, name: str, size_bytes: int) -> None:
        """It takes more or less than was known; others go if that is too much."""
        with self._lock:
            resident = self._present.get(name)
            if resident is not None:
                resident.size_bytes = size_bytes
                self._shrink()
                self._advance()

    def used_bytes(self) -> int:
        """What all that is loaded, being loaded or on its way out takes."""
        with self._lock:
            return sum(resident.size_bytes for resident in self._occupants())

    def residents(self) -> list[Resident[Thing]]:
        """What is there, by name; what is on its way out too."""
        now_s = self._clock()
        with self._lock:
            return [
                Resident(
                    r.name,
                    r.state,
                    r.size_bytes,
                    r.pins,
                    0.0 if r.pins else now_s - r.used_s,
                    r.loaded.result() if r.state == "ready" else None,
                )
                for r in sorted([*self._present.values(), *self._leaving], key=lambda r: r.name)
            ]

    def close(self) -> None:
        """Let everything go, in use or not; returns when it is gone. What was being loaded is let go when it has."""
        with self._lock:
            self._closed = True
            for resident in list(self._present.values()):
                resident.unwanted = True
                if resident.state == "ready":
                    self._part(resident)
                elif resident.state == "waiting":
                    self._fail(resident, Unavailable(f"{self.noun} {resident.name}: the server is stopping"))
            for resident in self._leaving:
                self._let_go(resident)
        self._threads.shutdown(wait=True)

    def _pin(self, name: str) -> Lease[Thing] | None:
        """A lease on what is there and stays; None when it must be made first."""
        if self._closed:
            raise Unavailable("the server is stopping", hint="ask again in a moment")
        resident = self._present.get(name)
        if resident is None:
            return None
        resident.pins += 1
        return Lease(resident.loaded, lambda: self._unpin(resident))

    def _unpin(self, resident: _Resident[Thing]) -> None:
        with self._lock:
            resident.pins -= 1
            resident.used_s = self._clock()
            if resident.pins == 0:
                if resident.state == "leaving":
                    self._let_go(resident)
                elif resident.state == "waiting":  # its last asker left before it could be loaded
                    self._fail(resident, Unavailable(f"{self.noun} {resident.name} is not wanted any more"))
                self._shrink()
                self._advance()

    def _advance(self) -> None:
        """Start to load what fits, in order of asking; make room for the first that does not."""
        for resident in [r for r in self._present.values() if r.state == "waiting"]:
            if any(leaving.name == resident.name for leaving in self._leaving):
                continue  # its predecessor is still there
            over_bytes, over = self._excess(resident.size_bytes, 1, self._occupants())
            if over_bytes <= 0 and over <= 0:
                resident.state = "loading"
                self._threads.submit(self._run_load, resident)
                continue
            staying = [r for r in self._occupants() if r.state != "leaving"]
            victims = self._choose_victims(*self._excess(resident.size_bytes, 1, staying))
            if victims is not None:
                for victim in victims:
                    self._part(victim)
            elif not self._patient:
                self._fail(resident, self._refusal(resident))
                continue
            return  # room is being made, or somebody must finish first

    def _shrink(self) -> None:
        """Let idle ones go until the budget holds again."""
        staying = [r for r in self._occupants() if r.state != "leaving"]
        over_bytes, over = self._excess(0, 0, staying)
        for resident in self._idle():
            if over_bytes <= 0 and over <= 0:
                return
            self._part(resident)
            over_bytes, over = over_bytes - resident.size_bytes, over - 1

    def _occupants(self) -> list[_Resident[Thing]]:
        return [*(r for r in self._present.values() if r.state != "waiting"), *self._leaving]

    def _idle(self) -> list[_Resident[Thing]]:
        """Ready and unused, the one not used longest first."""
        unused = (r for r in self._present.values() if r.state == "ready" and not r.pins)
        return sorted((r for r in unused if not self._keeps(r.name)), key=lambda r: r.used_s)

    def _excess(self, size_bytes: int, count: int, held: list[_Resident[Thing]]) -> tuple[int, int]:
        """(bytes, number) by which `held` and something more would be too much."""
        total = sum(r.size_bytes for r in held) + size_bytes
        over_bytes = total - self.budget_bytes if self.budget_bytes else 0
        return over_bytes, len(held) + count - self.most if self.most else 0

    def _choose_victims(self, over_bytes: int, over: int) -> list[_Resident[Thing]] | None:
        victims = []
        for resident in self._idle():
            if over_bytes <= 0 and over <= 0:
                break
            victims.append(resident)
            over_bytes, over = over_bytes - resident.size_bytes, over - 1
        return victims if over_bytes <= 0 and over <= 0 else None

    def _part(self, resident: _Resident[Thing]) -> None:
        """It takes no new user from here on, and goes once the last one has left."""
        del self._present[resident.name]
        resident.state = "leaving"
        self._leaving.append(resident)
        if not resident.pins:
            self._let_go(resident)

    def _let_go(self, resident: _Resident[Thing]) -> None:
        if not resident.going:
            resident.going = True
            self._threads.submit(self._run_unload, resident)

    def _fail(self, resident: _Resident[Thing], error: BaseException) -> None:
        del self._present[resident.name]
        resident.state, resident.going = "leaving", True
        resident.loaded.set_exception(error)
        resident.gone.set()

    def _run_load(self, resident: _Resident[Thing]) -> None:
        try:
            thing, resident.size_bytes = self._load(resident.name)
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the thing
            with self._lock:
                self._fail(resident, error)
                self._advance()
            return
        with self._lock:
            resident.state, resident.used_s = "ready", self._clock()
            resident.loaded.set_result(thing)
            del thing  # before anybody can let go of it: once it is gone, nothing here may refer to it
            closed = self._closed
            if closed:  # the threads take nothing more: this one lets go of what it has just loaded
                del self._present[resident.name]
                resident.state, resident.going = "leaving", True
                self._leaving.append(resident)
            elif resident.unwanted:
                self._part(resident)
            else:
                self._shrink()
                self._advance()
        if closed:
            self._run_unload(resident)

    def _run_unload(self, resident: _Resident[Thing]) -> None:
        try:
            self._unload(resident.name, resident.loaded.result())
        except Exception:  # noqa: BLE001 - its room is given up either way; the log says what went wrong
            _log.exception("%s %s could not be let go cleanly", self.noun, resident.name)
        resident.loaded = Future()
        self._freed()
        with self._lock:
            self._leaving.remove(resident)
            self._advance()
        resident.gone.set()

    def _check_size(self, name: str, size_bytes: int) -> None:
        if self.budget_bytes and size_bytes > self.budget_bytes:
            raise InvalidInput(
                f"{self.noun} {name} would take {_mb(size_bytes)}, all together may take {_mb(self.budget_bytes)}",
                hint="raise serve.memory_bytes, or lower serve.max_batch or serve.max_context_tokens",
            )

    def _refusal(self, resident: _Resident[Thing]) -> EspalierError:
        busy = [f"{r.name} ({_mb(r.size_bytes)})" for r in self._occupants() if r.pins or r.state != "ready"]
        return Unavailable(
            f"{self.noun} {resident.name} would take {_mb(resident.size_bytes)} of {_mb(self.budget_bytes)}; "
            f"in use now: {', '.join(busy)}",
            hint="ask again when those are idle, or raise serve.memory_bytes",
        )


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"
