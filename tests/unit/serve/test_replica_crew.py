"""The crew of a base's replicas, with replicas that are none: who takes what, who holds what, who goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import pytest

from espalier.core.config import ServeConfig
from espalier.core.errors import EspalierError, InvalidInput, NotFound, Unavailable
from espalier.core.ports import ChatRequest, Delta, EngineLoad, ReservedShare
from espalier.core.types import Message
from espalier.serve.replicas import crew as crew_module
from espalier.serve.replicas.crew import Crew
from espalier.serve.replicas.process import Flight, Replica


class StandIn(Replica):
    """A replica without a process: it is there at once, or when `gate` opens, and answers nothing by itself."""

    gate: asyncio.Event | None = None
    longest = 10_000

    async def open(self, threads: int, plan: Any) -> None:
        self.shares: list[list[Any]] = []
        if self.gate is not None:
            await self.gate.wait()

    async def call(self, name: str, *arguments: Any) -> Any:
        if name == "hold":
            (self.shares,) = arguments
        return {"state": vars_of(EngineLoad()), "memory_bytes": 1, "count_prompt_tokens": 7}.get(name)

    def ask(self, flight: Flight) -> None:
        if len(flight.request.messages[0].content) > self.longest:
            raise InvalidInput("too long for the line")
        self._last += 1
        self.flights[self._last] = flight

    async def close(self) -> None:
        """There is nothing to end."""


def vars_of(load: EngineLoad) -> dict[str, Any]:
    return {name: getattr(load, name) for name in load.__slots__}


@pytest.fixture(autouse=True)
def _without_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_module, "Replica", StandIn)


def play(wanted: int, story: Callable[[Crew], Coroutine[Any, Any, None]]) -> None:
    async def live() -> None:
        crew = Crew("path:x", "path:x", ServeConfig(threads=1, max_batch=8), wanted=wanted, most=4)
        await crew.open()
        await until(lambda: len(crew._ready()) == wanted)
        try:
            await story(crew)
        finally:
            await crew.close()

    asyncio.run(asyncio.wait_for(live(), 60))


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.01)


def flight(crew: Crew, text: str = "hello", reservation: str = "") -> tuple[Flight, list[Delta | EspalierError | None]]:
    told: list[Delta | EspalierError | None] = []
    request = ChatRequest("r", "", "", [Message("user", text)], reservation=reservation)
    return crew.make_flight(request, told.append), told


def shares_of(crew: Crew) -> list[list[list[Any]]]:
    return [cast(StandIn, replica).shares for replica in crew._ready()]


def test_the_replicas_that_are_there_hold_all_that_is_reserved_however_many_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for wait in ("_FIRST_WAIT_S", "_LONGEST_WAIT_S"):  # the dead one is not replaced before the test has looked
        monkeypatch.setattr(crew_module, wait, 600.0)

    async def story(crew: Crew) -> None:
        await crew.hold([ReservedShare("gold", 4, 1000)])
        assert shares_of(crew) == [[["gold", 2, 500]]] * 2
        crew.scale(1)
        await until(lambda: len(crew._ready()) == 1)
        await until(lambda: shares_of(crew) == [[["gold", 4, 1000]]])
        crew.scale(2)
        await until(lambda: shares_of(crew) == [[["gold", 2, 500]]] * 2)
        dead = crew._ready()[0]
        dead.state = "gone"
        crew._lose(dead)
        await until(lambda: shares_of(crew) == [[["gold", 4, 1000]]])

    play(2, story)


def test_requests_of_a_reservation_go_where_its_slots_are_free() -> None:
    async def story(crew: Crew) -> None:
        await crew.hold([ReservedShare("gold", 4, 1000)])
        for _ in range(4):
            crew.dispatch(flight(crew, "the same beginning", "gold")[0])
        assert [len(replica.flights) for replica in crew._ready()] == [2, 2]

    play(2, story)


def test_who_is_ready_goes_only_when_somebody_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(crew: Crew) -> None:
        gate = asyncio.Event()
        monkeypatch.setattr(StandIn, "gate", gate)
        crew.scale(2)
        await until(lambda: len(crew._replicas) == 2)
        crew.scale(1)
        for _ in range(3):
            crew._reconcile(0.0)
        assert len(crew._ready()) == 1
        gate.set()
        await until(lambda: [replica.state for replica in crew._replicas] == ["ready"])

    play(1, story)


@pytest.mark.parametrize("what", ["count", "load"])
def test_where_all_have_gone_who_asks_has_one_started_that_stays_until_the_request_has_come(what: str) -> None:
    async def story(crew: Crew) -> None:
        crew.scale(0)
        await until(lambda: not crew._replicas)
        begun, _ = flight(crew)
        if what == "count":
            assert await crew.count_prompt_tokens(begun.request) == 7
        else:
            await crew.load_adapter("a", Path("a"))
        for _ in range(3):
            crew._reconcile(time.monotonic())
        (only,) = crew._ready()
        crew.dispatch(begun)
        assert list(only.flights.values()) == [begun]
        crew.cancel(begun)
        crew._needed_until_s = 0.0  # it was long ago
        await until(lambda: not crew._replicas)

    play(1, story)


def test_a_request_that_no_line_can_carry_is_refused_and_the_others_go_on() -> None:
    async def story(crew: Crew) -> None:
        long, told = flight(crew, "x" * (StandIn.longest + 1))
        other, _ = flight(crew)
        crew.dispatch(long)
        crew.dispatch(other)
        assert isinstance(told[0], InvalidInput) and told[1:] == [None] and long.over
        crew._waiting += [flight(crew, "x" * (StandIn.longest + 1))[0], flight(crew)[0]]
        crew._reconcile(0.0)
        assert sum(len(replica.flights) for replica in crew._ready()) == 2 and not crew._waiting

    play(1, story)


def test_what_a_dead_replica_had_is_put_to_another_or_told() -> None:
    async def story(crew: Crew) -> None:
        fresh, begun = flight(crew), flight(crew)
        for each, _ in (fresh, begun):
            crew.dispatch(each)
        begun[0].told = True
        (dead,) = {replica.number: replica for replica in crew._ready() if replica.flights}.values()
        dead.state = "gone"
        crew._lose(dead)
        assert isinstance(begun[1][0], Unavailable) and not fresh[1]
        assert [list(replica.flights.values()) for replica in crew._ready()] == [[fresh[0]]]

    play(2, story)


class Pupil(StandIn):
    """Holds what it was taught, as a worker does: two calls at a time run in no order."""

    teaching_gate: asyncio.Event | None = None
    refuses = -1  # the number of the one that takes no adapter
    dies = -1  # of the one that does not survive one

    async def open(self, threads: int, plan: Any) -> None:
        await super().open(threads, plan)
        self.held: set[str] = set()
        self.begun: list[str] = []

    async def call(self, name: str, *arguments: Any) -> Any:
        if name == "load_adapter":
            self.begun.append(arguments[0])
            if self.number == self.dies:
                self.state = "gone"
                self.on_lost(self)
                raise Unavailable("the replica died")
            if self.number == self.refuses:
                raise InvalidInput("no memory for it")
            if self.teaching_gate is not None:
                await self.teaching_gate.wait()
            self.held.add(arguments[0])
        elif name == "unload_adapter":
            if arguments[0] not in self.held:
                raise NotFound("not loaded")
            self.held.remove(arguments[0])
        return await super().call(name, *arguments)


@pytest.fixture
def _pupils(monkeypatch: pytest.MonkeyPatch, _without_processes: None) -> None:
    monkeypatch.setattr(crew_module, "Replica", Pupil)


def held_by(crew: Crew) -> list[set[str]]:
    return [cast(Pupil, replica).held for replica in crew._ready()]


@pytest.mark.usefixtures("_pupils")
def test_what_is_let_go_while_a_replica_starts_is_not_there_when_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(crew: Crew) -> None:
        for digest in ("first", "second", "third"):
            await crew.load_adapter(digest, Path(digest))
        gate = asyncio.Event()
        monkeypatch.setattr(Pupil, "teaching_gate", gate)
        crew.scale(2)
        await until(lambda: len(crew._replicas) == 2)
        new = cast(Pupil, crew._replicas[1])
        await until(lambda: new.begun == ["first"])
        letting_go = [asyncio.create_task(crew.unload_adapter(digest)) for digest in ("first", "second")]
        for _ in range(20):  # as far as they come without it
            await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*letting_go)
        await until(lambda: len(crew._ready()) == 2)
        assert held_by(crew) == [{"third"}] * 2
        assert [replica.adapters for replica in crew._ready()] == [{"third"}] * 2

    play(1, story)


@pytest.mark.usefixtures("_pupils")
def test_a_replica_that_hangs_at_one_adapter_keeps_no_other_from_going_and_coming_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(crew: Crew) -> None:
        for digest in ("first", "second"):
            await crew.load_adapter(digest, Path(digest))
        monkeypatch.setattr(Pupil, "teaching_gate", asyncio.Event())
        crew.scale(2)
        await until(lambda: len(crew._replicas) == 2)
        new = cast(Pupil, crew._replicas[1])
        await until(lambda: new.begun == ["first"])  # and there it stays
        monkeypatch.setattr(Pupil, "teaching_gate", None)
        await crew.unload_adapter("second")
        assert held_by(crew) == [{"first"}]
        await crew.load_adapter("second", Path("second"))
        assert held_by(crew) == [{"first", "second"}]

    play(1, story)


@pytest.mark.usefixtures("_pupils")
def test_an_adapter_that_one_replica_does_not_take_is_left_with_none(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(crew: Crew) -> None:
        monkeypatch.setattr(Pupil, "refuses", crew._replicas[1].number)
        with pytest.raises(InvalidInput, match="no memory"):
            await crew.load_adapter("large", Path("large"))
        assert held_by(crew) == [set(), set()]
        assert crew.list_adapters() == []
        monkeypatch.setattr(Pupil, "refuses", -1)
        await crew.load_adapter("large", Path("large"))
        assert held_by(crew) == [{"large"}] * 2

    play(2, story)


@pytest.mark.usefixtures("_pupils")
def test_a_replica_that_dies_of_what_it_is_taught_is_not_ready_and_the_next_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(crew: Crew) -> None:
        await crew.load_adapter("deadly", Path("deadly"))
        monkeypatch.setattr(Pupil, "dies", 2)
        before_s = time.monotonic()
        crew.scale(2)
        await until(lambda: crew._deaths == 1)
        assert crew._resting_until_s > before_s
        await until(lambda: len(crew._ready()) == 2)  # the one after it lives
        assert held_by(crew) == [{"deadly"}] * 2
        assert [replica.number for replica in crew._ready()] == [1, 3]

    play(1, story)
