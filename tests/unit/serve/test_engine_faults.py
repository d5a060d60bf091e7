"""What goes wrong inside the engine: whom it ends, and what the others are given."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Any, cast

import pytest
import torch

from espalier.core.config import ServeConfig
from espalier.core.errors import EspalierError, Unavailable
from espalier.core.ports import ChatRequest, Delta
from espalier.core.types import Message, ResponseFormat, SamplingSpec
from espalier.nn.base import LoadedBase
from espalier.serve import ticket as ticket_module
from espalier.serve.engine import Engine
from espalier.serve.grammar import Grammar
from espalier.serve.telling import Telling

LETTERS = ResponseFormat(kind="regex", text="[a-z]+")


@pytest.fixture
def engine(load_tiny: Callable[[], LoadedBase]) -> Iterator[Engine]:
    engine = Engine(load_tiny(), ServeConfig(max_batch=4, max_context_tokens=300, step_budget_tokens=64)).start()
    yield engine
    engine.stop()


def ask_for(text: str = "hello", **sampling: Any) -> ChatRequest:
    return ChatRequest("req", "", "", [Message("user", text)], SamplingSpec(**{"max_tokens": 20, **sampling}))


async def collect(engine: Engine, request: ChatRequest) -> list[Delta]:
    async with aclosing(cast(Any, engine.stream(request))) as deltas:
        return [delta async for delta in deltas]


async def collect_together(engine: Engine, *requests: ChatRequest) -> list[list[Delta] | BaseException]:
    """Their answers, or what they ended with; all of them are in the engine before it computes for any."""
    with engine._turn:
        asking = [asyncio.ensure_future(collect(engine, request)) for request in requests]
        while len(engine._tickets) < len(requests):
            await asyncio.sleep(0.001)
    return await asyncio.gather(*asking, return_exceptions=True)


def run(work: Any) -> Any:
    return asyncio.run(asyncio.wait_for(work, 60))


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def fail(*args: Any, **options: Any) -> Any:
    raise KeyError("what a user wrote")


@pytest.mark.parametrize(
    ("sampling", "holder", "name"),
    [({"format": LETTERS}, Grammar, "allowed"), ({"logprobs": 1}, ticket_module, "token_bytes")],
    ids=["as its token is chosen", "as it is told"],
)
def test_a_fault_in_one_answer_ends_that_one_and_its_neighbours_are_answered_as_if_alone(
    engine: Engine, sampling: dict[str, Any], holder: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    neighbours = [ask_for("one"), ask_for("two", temperature=1.0, seed=5), ask_for("three", format=LETTERS)]
    if "format" in sampling:
        del neighbours[2]  # the fault is every form's
    alone = [text_of(run(collect(engine, each))) for each in neighbours]
    with monkeypatch.context() as patch:
        patch.setattr(holder, name, fail)
        faulty, *others = run(collect_together(engine, ask_for("four", **sampling), *neighbours))
    assert isinstance(faulty, EspalierError)
    assert "what a user wrote" not in str(faulty)
    assert "log" in faulty.hint
    assert [text_of(each) for each in others] == alone
    with engine._change:
        assert engine._change.wait_for(lambda: not engine._scheduler.busy, timeout=20)
    assert not engine._tickets
    assert text_of(run(collect(engine, neighbours[0]))) == alone[0]


def test_an_answer_whose_end_cannot_be_told_keeps_no_other_from_its_end_when_the_engine_stops(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush, ends = Telling.flush, itertools.count()

    async def stop_both() -> list[Any]:
        with engine._turn:
            asking = [asyncio.ensure_future(collect(engine, ask_for(max_tokens=200))) for _ in range(2)]
            while len(engine._tickets) < 2:
                await asyncio.sleep(0.001)
            stopping = asyncio.ensure_future(asyncio.to_thread(engine.stop))
            while not engine._stopping:
                await asyncio.sleep(0.001)
        ended = await asyncio.gather(*asking, return_exceptions=True)
        await stopping
        return ended

    monkeypatch.setattr(Telling, "flush", lambda own: fail() if next(ends) == 0 else flush(own))
    failed, cancelled = sorted(run(stop_both()), key=lambda end: isinstance(end, list))
    assert isinstance(failed, EspalierError)
    assert cancelled[-1].finish_reason == "cancelled"


def test_a_device_that_failed_ends_the_engine_for_it_computes_nothing_any_more(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*args: Any) -> torch.Tensor:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(engine._runner, "_forward", break_down)
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    assert run(collect(engine, ask_for()))[-1].finish_reason == "cancelled"
    assert not engine.answering  # who watches it has another loaded
    with pytest.raises(Unavailable):
        run(collect(engine, ask_for()))
    engine.stop()  # its thread ends within the hook above


def test_a_step_broken_off_in_the_middle_is_not_what_a_later_prompt_begins_with(
    load_tiny: Callable[[], LoadedBase], monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(engine: Engine, *texts: str) -> list[str]:
        batch = [[Message("user", text)] for text in texts]
        return [each.text for each in engine.generate(batch, SamplingSpec(max_tokens=12))]

    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    config = ServeConfig(max_batch=4, max_context_tokens=300, step_budget_tokens=64)
    longer = "a longer prompt, which is read before the other one, ends before it, and has nothing in common with it"
    shorter = "another prompt, which a later one begins with "
    engine = Engine(load_tiny(), config)
    (expected,) = answer(engine, shorter + "too")
    engine = Engine(load_tiny(), config)
    with monkeypatch.context() as patch:
        patch.setattr(engine._runner._cache, "copy", interrupt)  # as the shorter one moves to where the longer was
        with pytest.raises(KeyboardInterrupt):
            answer(engine, longer, shorter)
    assert answer(engine, shorter + "too") == [expected]
