"""An engine of two processes keeps the promises of a `ModelEngine`, and those beyond: nobody suffers a dead process."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import psutil
import pytest
from tests.contract.enginematerial import Material, MaterialContract, make_material

from espalier.core.config import EngineConfig, ServeConfig
from espalier.core.errors import InvalidInput, Unavailable, UnsupportedModel
from espalier.core.ids import make_id
from espalier.core.ports import ChatRequest, Delta
from espalier.core.types import Message, SamplingSpec
from espalier.nn.base import load_base
from espalier.serve.engine import Engine
from espalier.serve.engines.plan import EnginePlan
from espalier.serve.replicas.engine import ReplicaEngine
from espalier.serve.replicas.frames import Frame
from espalier.serve.replicas.process import Flight, Replica
from espalier.testing.contracts.engine import Held

pytestmark = pytest.mark.slow
SERVE = ServeConfig(max_batch=4, max_context_tokens=512, threads=2, max_replicas=2, min_replicas=2)


def plan(base: Path, **engine: object) -> EnginePlan:
    name = f"path:{base}"
    return EnginePlan(name, name, SERVE, EngineConfig.model_validate({"kind": "replicas", **engine}), base / "run")


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return make_material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def engine(material: Material) -> Iterator[ReplicaEngine]:
    started = ReplicaEngine(plan(material.base)).start()
    wait_until(lambda: len(started.list_processes()) == 2)
    yield started
    processes = started.list_processes()
    started.stop()
    assert not [pid for pid in processes if psutil.pid_exists(pid)]


def wait_until(true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


@contextmanager
def hold_replicas(engine: ReplicaEngine) -> Iterator[None]:
    """Of an answer, nothing that its replica says beyond its third piece is ever heard."""
    wait_until(lambda: len(engine.list_processes()) == 2)
    heard: Counter[tuple[int, int]] = Counter()

    def take_some(replica: Replica, frame: Frame) -> None:
        place = replica.number, frame["id"]
        heard[place] += frame["id"] in replica.flights
        if heard[place] <= 3:
            replica._take(frame)

    with pytest.MonkeyPatch.context() as patch:
        for replica in engine._crew._replicas:
            patch.setattr(replica._line, "_on_frame", partial(take_some, replica))
        yield


class TestReplicaEngine(MaterialContract):
    """Everything it promises."""

    @pytest.fixture
    def held(self, engine: ReplicaEngine) -> Held:
        return lambda: hold_replicas(engine)


def question(engine: ReplicaEngine, number: int, adapter: str = "", tokens: int = 24) -> ChatRequest:
    sampling = SamplingSpec(max_tokens=tokens, ignore_end=True)
    return ChatRequest(make_id("req"), engine.base, adapter, [Message("user", f"{number} asks this")], sampling)


async def read(engine: ReplicaEngine | Engine, request: ChatRequest) -> str:
    return "".join([delta.text async for delta in engine.stream(request)])


def test_both_processes_answer_and_as_one_engine_would(
    engine: ReplicaEngine, material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_until(lambda: len(engine.list_processes()) == 2)  # started anew it answers before its second is there
    alone = Engine(load_base(engine.base), SERVE.model_copy(update={"threads": 0})).start()
    digests = ["", *material.adapters]
    for digest, folder in material.adapters.items():
        engine.load_adapter(digest, folder)
        alone.load_adapter(digest, folder)

    async def ask_all(asked: ReplicaEngine | Engine) -> list[str]:
        return await asyncio.gather(*(read(asked, question(engine, n, digests[n % 3])) for n in range(24)))

    asked: set[int] = set()

    def watch(replica: Replica, flight: Flight) -> None:
        asked.add(replica.number)
        ask(replica, flight)

    ask = Replica.ask
    monkeypatch.setattr(Replica, "ask", watch)
    try:
        assert asyncio.run(ask_all(engine)) == asyncio.run(ask_all(alone))
        assert len(asked) == 2, "one of the two had nothing to do"
    finally:
        alone.stop()
        for digest in material.adapters:
            engine.unload_adapter(digest)


def test_a_replica_killed_under_load_costs_only_the_answers_it_had_begun(
    engine: ReplicaEngine, material: Material
) -> None:
    """kill -9 with half of the answers begun: every other one comes whole, and the dead one is replaced."""
    wait_until(lambda: len(engine.list_processes()) == 2)
    (digest, folder), *_ = material.adapters.items()
    engine.load_adapter(digest, folder)
    victim = engine.list_processes()[0]

    async def ask(number: int, begun: asyncio.Event) -> str | Unavailable:
        pieces = []
        try:
            async for delta in engine.stream(question(engine, number, digest if number % 2 else "", tokens=100)):
                pieces.append(delta.text)
                begun.set()
        except Unavailable as error:
            assert pieces, "it had said nothing yet, so another could have answered"
            return error
        return "".join(pieces)

    async def play() -> list[str | Unavailable]:
        begun = [asyncio.Event() for _ in range(32)]
        asking = [asyncio.ensure_future(ask(number, begun[number])) for number in range(32)]
        while sum(event.is_set() for event in begun) < 6:
            await asyncio.sleep(0.002)
        os.kill(victim, signal.SIGKILL)
        return await asyncio.wait_for(asyncio.gather(*asking), 120)

    answers = asyncio.run(play())
    lost = [answer for answer in answers if isinstance(answer, Unavailable)]
    assert len(lost) <= SERVE.max_batch  # no more than it had slots
    wait_until(lambda: len(set(engine.list_processes()) - {victim}) == 2)  # it may be known of its death later

    async def again() -> list[str]:
        return await asyncio.gather(
            *(read(engine, question(engine, n, digest if n % 2 else "", tokens=100)) for n in range(32))
        )

    # The new one has the adapter too, and everything is answered as before.
    for now, before in zip(asyncio.run(again()), answers, strict=True):
        assert isinstance(before, Unavailable) or now == before
    engine.unload_adapter(digest)


def test_scaled_down_it_finishes_its_answers_first_and_up_again_it_serves(engine: ReplicaEngine) -> None:
    wait_until(lambda: len(engine.list_processes()) == 2)

    async def play() -> None:
        streams = [
            cast("AsyncGenerator[Delta, None]", engine.stream(question(engine, n, tokens=150))) for n in range(4)
        ]
        for stream in streams:
            await anext(stream)
        engine.scale(1)
        for stream in streams:
            async with aclosing(stream):
                assert [delta async for delta in stream][-1].finish_reason == "length"

    asyncio.run(asyncio.wait_for(play(), 60))
    wait_until(lambda: len(engine.list_processes()) == 1 == len(engine._crew._replicas))
    engine.scale(2)
    wait_until(lambda: len(engine.list_processes()) == 2)


def test_a_worker_is_given_no_secret_of_the_server(engine: ReplicaEngine) -> None:
    names = psutil.Process(engine.list_processes()[0]).environ()
    assert not {"ESPALIER_TEST_SECRET", "PGPASSWORD"} & set(names) and "PATH" in names


@pytest.fixture(scope="module", autouse=True)
def secret() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ESPALIER_TEST_SECRET", "PGPASSWORD"):
            patch.setenv(name, "x")
        yield


def test_a_base_that_cannot_be_loaded_is_refused_in_the_words_of_its_refusal(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no-such-model"}', "utf-8")
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    alone = replace(plan(tmp_path), serve=SERVE.model_copy(update={"min_replicas": 1}))
    with pytest.raises((UnsupportedModel, InvalidInput)):
        ReplicaEngine(alone).start()
