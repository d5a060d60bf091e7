"""Several bases in one process under a memory budget, and adapters that come and go while requests run."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import cast

import psutil
import pytest
from tests.unit.services.poolhouse import (
    StandIn,
    ask,
    loaded,
    put_adapter,
    put_adapters,
    question,
    wait_until,
)
from transformers import AutoModelForCausalLM

from espalier.core.errors import DigestMismatch, InvalidInput, NotFound, Unavailable
from espalier.core.ports import ChatRequest, Delta, ReservedShare
from espalier.core.types import SamplingSpec
from espalier.nn.base import load_base
from espalier.services.pool import ModelPool
from espalier.store.store import Store
from espalier.testing.tiny import make_tiny_base


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
