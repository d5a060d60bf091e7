"""What becomes of engines that break, do not start, grow, or are stopped in the middle."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tests.unit.services.poolhouse import (
    StandIn,
    ask,
    put_adapter,
    question,
    wait_until,
)

from espalier.core.config import EngineConfig
from espalier.core.errors import Unavailable
from espalier.core.ports import Delta, EngineLoad
from espalier.core.types import SamplingSpec
from espalier.services import pool as pool_module
from espalier.services.pool import ModelPool
from espalier.store.store import Store


def test_a_broken_engine_is_replaced(
    make_pool: Callable[..., ModelPool], bases: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_LOOK_S", 3600.0)  # it looks after its bases when it is told to
    pool = make_pool()
    before = ask(pool, question(bases[0]))
    seat = pool.list_bases()[0].thing
    assert seat is not None
    seat.engine._broken = True  # type: ignore[attr-defined]  # what a bug in the engine's thread leaves behind
    with pytest.raises(Unavailable):
        ask(pool, question(bases[0]))
    pool._look()
    wait_until(lambda: not pool.list_bases())
    assert ask(pool, question(bases[0])) == before


def test_a_base_that_cannot_be_looked_after_keeps_no_other_from_being_replaced(
    make_pool: Callable[..., ModelPool], bases: list[str]
) -> None:
    first, second = sorted(bases[:2])  # the order in which they are looked after
    pool = make_pool(lambda base: StandIn(base), max_replicas=4)
    pool.load(first)
    pool.load(second)
    engines = {resident.name: resident.thing.engine for resident in pool.list_bases() if resident.thing}
    looked: list[str] = []

    def refuse() -> EngineLoad:
        looked.append(first)
        raise RuntimeError("its cluster is away")

    engines[first].load = refuse  # type: ignore[method-assign]
    engines[second].answering = False  # type: ignore[attr-defined]
    wait_until(lambda: bool(looked))
    wait_until(lambda: len(pool.list_bases()) < 2)
    assert [resident.name for resident in pool.list_bases()] == [first]


def test_an_engine_that_does_not_start_is_stopped_with_what_it_began(make_pool: Callable[..., ModelPool]) -> None:
    class Failing(StandIn):
        def start(self) -> StandIn:
            raise ValueError("a page that is no JSON")

    engine = Failing("builtin:seedling")
    with pytest.raises(ValueError, match="no JSON"):
        make_pool(lambda base: engine).load("builtin:seedling")
    assert engine.stopped == 1


def test_the_engine_grows_with_its_load_as_far_as_memory_allows(make_pool: Callable[..., ModelPool]) -> None:
    engine = StandIn("builtin:seedling", size_bytes=100)
    engine.tokens_in_flight = 100_000
    chosen = {"builtin:*": EngineConfig(kind="openai", max_replicas=8)}
    pool = make_pool(
        lambda base: engine,
        memory_bytes=350,
        engines=chosen,
        target_tokens_in_flight=10_000,
        cooldown_up_s=3600.0,  # once
    )
    pool.load("builtin:seedling")
    wait_until(lambda: bool(engine.scaled))
    assert engine.scaled == [3]


def test_replicas_that_are_still_starting_are_counted_as_large_as_they_will_be(
    make_pool: Callable[..., ModelPool], bases: list[str]
) -> None:
    class Watched(StandIn):
        looks = 0

        def load(self) -> EngineLoad:
            self.looks += 1
            return super().load()

    each = make_pool()._estimate(bases[0])
    engine = Watched(bases[0], size_bytes=each)  # of the one that is there; those that start take nothing yet
    engine.tokens_in_flight = 100_000
    chosen = {"path:*": EngineConfig(kind="replicas", max_replicas=8)}
    pool = make_pool(
        lambda base: engine, engines=chosen, memory_bytes=int(3.5 * each), target_tokens_in_flight=10_000,
        cooldown_up_s=0.0,
    )  # fmt: skip
    pool.load(bases[0])
    wait_until(lambda: engine.looks >= 5)
    assert engine.scaled == [3]


class Starting(StandIn):
    """Starts until it is stopped, as vLLM does, which loads for minutes."""

    refuses = False  # the first stop fails
    began: threading.Event
    ended: threading.Event

    def start(self) -> StandIn:
        self.began.set()
        assert self.ended.wait(60)
        raise Unavailable("it ended at its start")

    def stop(self) -> None:
        fails = self.refuses and not self.ended.is_set()
        self.ended.set()
        if fails:
            raise OSError("no such process")


@pytest.fixture
def engine() -> Starting:
    made = Starting("builtin:seedling")
    made.began, made.ended = threading.Event(), threading.Event()
    return made


def stop_while_it_starts(pool: ModelPool, engine: Starting) -> None:
    with ThreadPoolExecutor() as threads:
        loading = threads.submit(pool.load, engine.base)
        assert engine.began.wait(60)
        pool.stop()
        with pytest.raises(Unavailable, match="ended at its start"):
            loading.result(60)


def test_stopping_ends_an_engine_that_is_still_starting_instead_of_waiting_for_it(
    make_pool: Callable[..., ModelPool], engine: Starting
) -> None:
    pool = make_pool(lambda base: engine)
    stop_while_it_starts(pool, engine)
    assert engine.ended.is_set() and not pool.list_bases()


def test_an_engine_that_cannot_be_stopped_while_it_starts_keeps_no_other_from_being_stopped(
    make_pool: Callable[..., ModelPool], engine: Starting
) -> None:
    engine.refuses = True
    pool = make_pool(lambda base: engine)
    stop_while_it_starts(pool, engine)
    with pytest.raises(Unavailable):  # all others are closed too
        pool.load("builtin:seedling")


def test_stopping_ends_answers_under_way_instead_of_waiting_for_them(
    make_pool: Callable[..., ModelPool],
    store: Store,
    bases: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digest = put_adapter(store, bases[0], tmp_path / "adapter", seed=1)
    pool = make_pool(max_context_tokens=512)
    pool.load(bases[0], digest)
    seat = pool.list_bases()[0].thing
    assert seat is not None
    engine: Any = seat.engine
    forward, steps = engine._runner._forward, itertools.count()

    def go_no_further(*args: Any) -> torch.Tensor:
        if next(steps) == 30:  # the answer is under way until it is stopped, however quick the machine is
            with engine._change:
                assert engine._change.wait_for(lambda: engine._stopping, timeout=60)
        answer: torch.Tensor = forward(*args)
        return answer

    monkeypatch.setattr(engine._runner, "_forward", go_no_further)

    async def play() -> list[Delta]:
        request = question(bases[0], digest)
        request.sampling = SamplingSpec(max_tokens=450, ignore_end=True)
        deltas = cast("AsyncGenerator[Delta, None]", pool.stream(request))
        await anext(deltas)
        await asyncio.to_thread(pool.stop)
        return [delta async for delta in deltas]

    assert asyncio.run(asyncio.wait_for(play(), 120))[-1].finish_reason == "cancelled"


def test_what_is_estimated_is_as_many_times_a_base_as_its_engine_starts(
    make_pool: Callable[..., ModelPool], bases: list[str]
) -> None:
    def estimate(kind: str, min_replicas: int, own: int | None = None) -> int:
        engines = {"path:*": EngineConfig(kind=kind, min_replicas=own)}
        return make_pool(min_replicas=min_replicas, max_replicas=4, engines=engines)._estimate(bases[0])

    once = make_pool()._estimate(bases[0])
    assert estimate("embedded", 3) == once
    assert estimate("replicas", 3) == 3 * once
    assert estimate("replicas", 0) == once  # the first is started with the base
    assert estimate("replicas", 1, own=2) == 2 * once
    assert estimate("vllm", 1) == 0
