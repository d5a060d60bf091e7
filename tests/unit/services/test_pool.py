"""Several bases in one process under a memory budget, and adapters that come and go while requests run."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM

from espalier.core.config import EngineConfig, ServeConfig
from espalier.core.errors import DigestMismatch, InvalidInput, NotFound, Unavailable
from espalier.core.ids import make_id
from espalier.core.ports import ChatRequest, Delta, EngineLoad, ReservedShare
from espalier.core.types import Message, SamplingSpec
from espalier.nn.adapters import attach_adapters, save_adapter
from espalier.nn.base import load_base
from espalier.nn.lora import LoraSpec
from espalier.services import pool as pool_module
from espalier.services.pool import ModelPool
from espalier.store.store import Store, open_store
from espalier.store.workspace import init_workspace
from espalier.testing.tiny import make_tiny_base

ANSWER_TOKENS = 6


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(init_workspace(tmp_path / "workspace"))
    yield opened
    opened.close()


@pytest.fixture
def make_pool(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ModelPool]]:
    monkeypatch.setattr(pool_module, "_LOOK_S", 0.05)  # it looks after what is loaded that often
    pools: list[ModelPool] = []

    def build(open_engine: Any = None, **settings: Any) -> ModelPool:
        config = ServeConfig(**{"max_batch": 4, "max_context_tokens": 128, "threads": 1, **settings})
        pools.append(ModelPool(store, config, open_engine=open_engine))
        return pools[-1]

    yield build
    for pool in pools:
        pool.stop()


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [f"path:{make_tiny_base(tmp_path_factory.mktemp('base'), seed=seed)}" for seed in range(3)]


def question(base: str, adapter: str = "", text: str = "one two three") -> ChatRequest:
    return ChatRequest(make_id("req"), base, adapter, [Message("user", text)], SamplingSpec(max_tokens=ANSWER_TOKENS))


def ask(pool: ModelPool, request: ChatRequest) -> str:
    async def read() -> str:
        return "".join([delta.text async for delta in pool.stream(request)])

    return asyncio.run(asyncio.wait_for(read(), 60))


def loaded(pool: ModelPool) -> list[str]:
    return [resident.name for resident in pool.list_bases() if resident.state == "ready"]


def wait_until(true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def put_adapter(store: Store, base: str, folder: Path, seed: int) -> str:
    """A random adapter of `base` in the store; its digest."""
    return put_adapters(store, base, folder, [seed])[0]


def put_adapters(store: Store, base: str, folder: Path, seeds: Iterable[int]) -> list[str]:
    opened = load_base(base)
    adapters = attach_adapters(opened.model, LoraSpec(rank=2, alpha=4), seed=0)
    digests = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in adapters.parameters():
                parameter.normal_(std=0.3, generator=generator)
        save_adapter(folder / str(seed), adapters, opened)
        digests.append(store.artifacts.put("adapter", folder / str(seed)).digest)
    return digests


class StandIn:
    """An engine of a given size without a model. `gate` holds back its start."""

    def __init__(self, base: str, size_bytes: int = 0, gate: threading.Event | None = None) -> None:
        self.base, self.size_bytes, self.gate = base, size_bytes, gate
        self.started = self.stopped = 0
        self.adapters: list[str] = []
        self.held: list[ReservedShare] = []
        self.replicas, self.scaled, self.tokens_in_flight = 1, list[int](), 0

    def start(self) -> StandIn:
        assert self.gate is None or self.gate.wait(60)
        self.started += 1
        return self

    def stop(self) -> None:
        self.stopped += 1

    def memory_bytes(self) -> int:
        return self.size_bytes

    def load_adapter(self, digest: str, folder: Path) -> None:
        self.adapters.append(digest)

    def unload_adapter(self, digest: str) -> None:
        self.adapters.remove(digest)

    def list_adapters(self) -> list[str]:
        return self.adapters

    def hold(self, shares: list[ReservedShare]) -> None:
        self.held = list(shares)

    def load(self) -> EngineLoad:
        return EngineLoad(running=int(self.tokens_in_flight > 0), tokens_in_flight=self.tokens_in_flight)

    def count_replicas(self) -> int:
        return self.replicas

    def scale(self, replicas: int) -> None:
        self.scaled.append(replicas)
        self.replicas = replicas

    def count_prompt_tokens(self, request: ChatRequest) -> int:
        return 3

    async def stream(self, request: ChatRequest) -> AsyncIterator[Delta]:
        yield Delta(request.base, "stop")


def test_a_base_is_loaded_once_when_it_is_first_asked_and_stays(make_pool: Callable[..., ModelPool]) -> None:
    made: list[StandIn] = []

    def opening(base: str) -> StandIn:
        made.append(StandIn(base))
        return made[-1]

    pool = make_pool(opening)

    async def ask_at_once() -> list[list[Delta]]:
        async def one() -> list[Delta]:
            return [delta async for delta in pool.stream(question("builtin:seedling"))]

        return await asyncio.gather(*(one() for _ in range(50)))

    assert len(asyncio.run(ask_at_once())) == 50
    assert [engine.started for engine in made] == [1]


def test_while_one_base_is_loading_another_is_admitted_and_answers(
    make_pool: Callable[..., ModelPool], bases: list[str]
) -> None:
    gate = threading.Event()
    pool = make_pool(lambda base: StandIn(base, gate=gate if base == bases[0] else None))

    async def play() -> str:
        slow = question(bases[0])
        # A thread that admits is not held up either: the tokenizer alone counts the prompt.
        assert pool.count_prompt_tokens(slow) == len(load_base(bases[0]).tokenizer.encode_prompt(slow.messages))
        waiting = asyncio.ensure_future(anext(cast("AsyncGenerator[Delta, None]", pool.stream(slow))))
        quick = [delta.text async for delta in pool.stream(question(bases[1]))]
        assert not waiting.done()
        assert [pool.is_ready(base) for base in bases] == [False, True, False]
        gate.set()
        assert (await waiting).text == bases[0]
        assert pool.is_ready(bases[0])
        return quick[0]

    assert asyncio.run(asyncio.wait_for(play(), 60)) == bases[1]


def test_under_a_budget_the_base_not_used_longest_makes_room(
    make_pool: Callable[..., ModelPool], bases: list[str]
) -> None:
    size = make_pool()._estimate(bases[0])
    pool = make_pool(memory_bytes=int(2.5 * size))
    first = ask(pool, question(bases[0]))
    ask(pool, question(bases[1]))
    ask(pool, question(bases[0]))
    ask(pool, question(bases[2]))
    wait_until(lambda: sorted(loaded(pool)) == sorted([bases[0], bases[2]]))
    assert ask(pool, question(bases[0])) == first


def test_a_base_that_cannot_fit_is_refused_with_figures(make_pool: Callable[..., ModelPool], bases: list[str]) -> None:
    size = make_pool()._estimate(bases[0])
    small = make_pool(memory_bytes=size // 2)
    with pytest.raises(InvalidInput, match=r"would take \d+.\d+ MB, all together may take \d+.\d+ MB"):
        ask(small, question(bases[0]))
    pool = make_pool(memory_bytes=int(1.5 * size))

    async def play() -> None:
        async with aclosing(cast("AsyncGenerator[Delta, None]", pool.stream(question(bases[0])))) as deltas:
            await anext(deltas)
            with pytest.raises(Unavailable, match=r"in use now: path:"):
                async for _ in pool.stream(question(bases[1])):
                    pass

    asyncio.run(asyncio.wait_for(play(), 60))
    assert ask(pool, question(bases[1]))  # the first is idle now


def test_what_is_estimated_before_loading_is_what_is_measured_after(
    make_pool: Callable[..., ModelPool], bases: list[str]
) -> None:
    pool = make_pool()
    estimate = pool._estimate(bases[0])
    ask(pool, question(bases[0]))
    measured = pool.list_bases()[0].size_bytes
    assert measured == pytest.approx(estimate, rel=0.02)


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


def test_an_idle_base_goes_and_its_memory_goes_back_to_the_system(
    make_pool: Callable[..., ModelPool], tmp_path: Path
) -> None:
    base = f"path:{make_wide_base(tmp_path / 'wide')}"
    pool = make_pool(idle_s=1.0)
    rss = psutil.Process().memory_info
    use = pool._begin(base, "")  # it stays for as long as it is looked at
    seat = use.base.loaded.result()
    weights_bytes = sum(p.nbytes for p in seat.engine.base.model.parameters())  # type: ignore[attr-defined]
    model = weakref.ref(seat.engine.base.model)  # type: ignore[attr-defined]
    del seat
    full_bytes = rss().rss
    use.release()
    wait_until(lambda: not pool.list_bases())
    gc.collect()
    assert model() is None
    assert full_bytes - rss().rss > 0.8 * weights_bytes
    assert ask(pool, question(base)) is not None  # scaled to zero, and back


def make_wide_base(folder: Path) -> Path:
    """The tiny base with 13 million parameters."""
    make_tiny_base(folder)
    config = AutoModelForCausalLM.from_pretrained(folder).config
    config.hidden_size, config.intermediate_size, config.num_hidden_layers, config.head_dim = 512, 2048, 3, 128
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def test_a_base_in_use_is_not_idle(make_pool: Callable[..., ModelPool]) -> None:
    gate, asked, looks = asyncio.Event(), question("builtin:seedling"), list[int]()

    class Slow(StandIn):
        def count_replicas(self) -> int:  # the pool looks after it
            looks.append(1)
            return super().count_replicas()

        async def stream(self, request: ChatRequest) -> AsyncIterator[Delta]:
            yield Delta("a")
            if request.id == asked.id:  # and not the answer that warms it
                await gate.wait()
            yield Delta("b", "stop")

    pool = make_pool(Slow, idle_s=0.05)

    async def play() -> str:
        deltas = cast("AsyncGenerator[Delta, None]", pool.stream(asked))
        first = (await anext(deltas)).text
        seen = len(looks)
        while len(looks) < seen + 10:
            await asyncio.sleep(0.01)
        assert loaded(pool) == ["builtin:seedling"]
        gate.set()
        return first + "".join([delta.text async for delta in deltas])

    assert asyncio.run(asyncio.wait_for(play(), 60)) == "ab"
    wait_until(lambda: not pool.list_bases())


def test_a_reserved_base_stays_and_is_told_its_shares_again_whenever_it_is_loaded(
    make_pool: Callable[..., ModelPool], bases: list[str]
) -> None:
    engines: dict[str, StandIn] = {}
    pool = make_pool(lambda base: engines.setdefault(base, StandIn(base)), idle_s=0.05)
    shares = [ReservedShare("gold", 2, 1000)]
    use = pool._begin("builtin:seedling", "")  # in use, so that it is there to be told
    use.base.loaded.result()
    pool.hold({"builtin:seedling": shares, bases[1]: shares})
    pool.load(bases[1])
    assert [engine.held for engine in engines.values()] == [shares, shares]
    pool.hold({bases[1]: shares})
    assert engines["builtin:seedling"].held == []
    use.release()
    wait_until(lambda: loaded(pool) == [bases[1]])


def test_what_was_reserved_last_is_held_though_an_earlier_one_is_told_slowly(
    make_pool: Callable[..., ModelPool],
) -> None:
    telling, go_on, engines = threading.Event(), threading.Event(), list[StandIn]()
    before, after = [ReservedShare("gold", 2, 1000)], [ReservedShare("silver", 1, 500)]

    class Slow(StandIn):
        def hold(self, shares: list[ReservedShare]) -> None:
            if list(shares) == before:
                telling.set()
                assert go_on.wait(60)
            super().hold(shares)

    def opening(base: str) -> StandIn:
        engines.append(Slow(base))
        return engines[-1]

    pool = make_pool(opening)
    pool.load("builtin:seedling")
    threads = [threading.Thread(target=pool.hold, args=({"builtin:seedling": shares},)) for shares in (before, after)]
    threads[0].start()
    assert telling.wait(60)
    threads[1].start()
    threads[1].join(0.3)  # it could overtake the slow one now
    go_on.set()
    for thread in threads:
        thread.join()
    assert engines[0].held == after


def test_a_reservation_made_while_a_base_is_loading_is_held_once_it_is_there(
    make_pool: Callable[..., ModelPool],
) -> None:
    warming, go_on = threading.Event(), threading.Event()

    class Slow(StandIn):
        async def stream(self, request: ChatRequest) -> AsyncIterator[Delta]:
            warming.set()
            assert await asyncio.to_thread(go_on.wait, 60)
            yield Delta("", "stop")

    made: list[Slow] = []

    def opening(base: str) -> Slow:
        made.append(Slow(base))
        return made[-1]

    pool = make_pool(opening)
    loading = threading.Thread(target=pool.load, args=("builtin:seedling",))
    loading.start()
    assert warming.wait(60)
    shares = [ReservedShare("gold", 2, 1000)]
    pool.hold({"builtin:seedling": shares})
    go_on.set()
    loading.join()
    wait_until(lambda: made[0].held == shares)


def test_a_reservation_that_one_base_cannot_hold_keeps_neither_it_nor_the_others_back(
    make_pool: Callable[..., ModelPool], bases: list[str]
) -> None:
    class Small(StandIn):
        def hold(self, shares: list[ReservedShare]) -> None:
            if sum(share.slots for share in shares) > 2:
                raise InvalidInput("too many slots")
            super().hold(shares)

    engines: dict[str, StandIn] = {}
    pool = make_pool(lambda base: engines.setdefault(base, Small(base)))
    small, large = [ReservedShare("gold", 2, 1000)], [ReservedShare("silver", 3, 1000)]
    with pytest.raises(InvalidInput):
        for base in bases[:2]:
            pool.load(base)
        pool.hold({sorted(bases[:2])[0]: large, sorted(bases[:2])[1]: small})
    assert engines[sorted(bases[:2])[1]].held == small
    pool.hold({bases[2]: large} | dict.fromkeys(bases[:2], small))
    assert ask(pool, question(bases[2])) == bases[2]  # its requests wait like everybody's
    assert all(engines[base].held == small for base in bases[:2])


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
    wait_until(lambda: [resident.name for resident in pool.list_bases()] == [first])


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


def test_an_adapter_of_another_base_is_refused_and_the_next_request_is_answered(
    make_pool: Callable[..., ModelPool], store: Store, bases: list[str], tmp_path: Path
) -> None:
    foreign = put_adapter(store, bases[1], tmp_path / "foreign", seed=1)
    pool = make_pool()
    with pytest.raises(DigestMismatch, match="base"):
        ask(pool, question(bases[0], foreign))
    with pytest.raises(NotFound):
        ask(pool, question(bases[0], "0" * 64))
    assert ask(pool, question(bases[0]))


def test_a_request_admitted_keeps_its_adapter_whatever_is_loaded_until_it_comes(
    make_pool: Callable[..., ModelPool], store: Store, bases: list[str], tmp_path: Path
) -> None:
    one, other = put_adapters(store, bases[0], tmp_path / "adapters", (1, 2))
    pool = make_pool(max_adapters=1)
    expected = ask(pool, question(bases[0], one))
    admitted = question(bases[0], one)
    pool.count_prompt_tokens(admitted)

    async def play() -> tuple[str, str]:
        async def read(request: ChatRequest) -> str:
            return "".join([delta.text async for delta in pool.stream(request)])

        late = asyncio.ensure_future(read(question(bases[0], other)))
        await asyncio.sleep(0.3)
        assert not late.done()  # the only place is the admitted one's
        return await read(admitted), await late

    first, second = asyncio.run(asyncio.wait_for(play(), 60))
    assert first == expected
    assert second == ask(pool, question(bases[0], other)) != first


def test_a_hundred_adapters_on_one_base_answer_with_few_loaded(
    make_pool: Callable[..., ModelPool], store: Store, bases: list[str], tmp_path: Path
) -> None:
    digests = put_adapters(store, bases[0], tmp_path / "adapters", range(100))
    pool = make_pool(max_adapters=8, max_batch=16)
    most = 0

    async def read(request: ChatRequest) -> str:
        nonlocal most
        pool.count_prompt_tokens(request)
        text = "".join([delta.text async for delta in pool.stream(request)])
        seat = pool.list_bases()[0].thing
        assert seat is not None
        most = max(most, len(seat.engine.list_adapters()))
        return text

    async def read_all(order: list[str]) -> dict[str, str]:
        texts = await asyncio.gather(*(read(question(bases[0], digest)) for digest in order))
        return dict(zip(order, texts, strict=True))

    forward = asyncio.run(asyncio.wait_for(read_all(digests), 120))
    backward = asyncio.run(asyncio.wait_for(read_all(digests[::-1]), 120))
    assert forward == backward
    assert len(set(forward.values())) > 90  # they differ, so one in another's place would be seen
    assert most <= 8


def test_unloading_waits_for_the_answers_under_way_and_only_for_those(
    make_pool: Callable[..., ModelPool], store: Store, bases: list[str], tmp_path: Path
) -> None:
    digest = put_adapter(store, bases[0], tmp_path / "adapter", seed=1)
    pool = make_pool()

    async def play() -> None:
        request = question(bases[0], digest)
        request.sampling = SamplingSpec(max_tokens=64, ignore_end=True)
        deltas = cast("AsyncGenerator[Delta, None]", pool.stream(request))
        await anext(deltas)
        unloading = asyncio.ensure_future(asyncio.to_thread(pool.unload, bases[0], digest))
        async for _ in pool.stream(question(bases[0])):  # others are answered meanwhile
            pass
        assert not unloading.done()
        await deltas.aclose()
        await unloading

    asyncio.run(asyncio.wait_for(play(), 60))
    seat = pool.list_bases()[0].thing
    assert seat is not None and seat.engine.list_adapters() == []
    with pytest.raises(NotFound):
        pool.unload(bases[0], digest)


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
