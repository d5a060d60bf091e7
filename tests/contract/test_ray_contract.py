"""A base on Ray Serve keeps the promises of a `ModelEngine`: over a strict double of its handles, and once for real.

The double does what Ray does to what is passed: it arrives as a copy, and only plain JSON values may be sent.
"""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from tests.contract.enginematerial import Material, MaterialContract, make_material

from espalier.core.config import EngineConfig, ServeConfig
from espalier.core.errors import InvalidInput, Unavailable
from espalier.core.ports import Replicated
from espalier.serve.engines.plan import EnginePlan
from espalier.serve.engines.rayreplica import EngineReplica
from espalier.serve.engines.rayserve import RayServeEngine, ReplicaLost, ScaledRayServeEngine, open_ray
from espalier.testing.contracts.provider import collect

SERVE = ServeConfig(max_batch=4, max_context_tokens=512, threads=1, min_replicas=2, max_replicas=4)


def copy(value: Any) -> Any:
    return orjson.loads(orjson.dumps(value))


class Handles:
    """Replicas in this process, asked in turn. The next `losing` requests lose theirs, after `pieces` pieces."""

    def __init__(self, plan: EnginePlan) -> None:
        self._plan = plan
        self.replicas: list[EngineReplica] = []
        self.deployed: list[int] = []
        self.losing = self.pieces = self.cancelled = 0
        self._turns = itertools.count()

    def deploy(self, replicas: int) -> None:
        self.deployed.append(replicas)
        serve = copy(self._plan.serve.model_dump(mode="json", exclude={"engines"}))
        while len(self.replicas) < replicas:
            self.replicas.append(EngineReplica(self._plan.base, self._plan.place, serve))

    async def ask(self, request: Any, folder: str) -> AsyncIterator[Any]:
        losing, self.losing = self.losing, max(0, self.losing - 1)
        if losing and not self.pieces:
            raise ReplicaLost("killed")
        replica = self.replicas[next(self._turns) % len(self.replicas)]
        ended = False
        try:
            stream = cast("Any", replica.stream(copy(request), copy(folder)))
            async with aclosing(stream) as pieces:
                told = 0
                async for piece in pieces:
                    if losing and told == self.pieces:
                        raise ReplicaLost("killed")
                    told += 1
                    yield copy(piece)
            ended = True
        finally:
            self.cancelled += not ended

    def call(self, name: str, *arguments: Any) -> Any:
        replica = self.replicas[next(self._turns) % len(self.replicas)]
        return copy(asyncio.run(getattr(replica, name)(*copy(list(arguments)))))

    def remove(self) -> None:
        for replica in self.replicas:
            replica.engine.stop()
        self.replicas.clear()


def make_plan(material: Material, **engine: Any) -> EnginePlan:
    name = f"path:{material.base}"
    return EnginePlan(name, name, SERVE, EngineConfig(kind="ray", **engine), material.base / "run")


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return make_material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def handles(material: Material) -> Handles:
    return Handles(make_plan(material))


@pytest.fixture(scope="module")
def engine(material: Material, handles: Handles) -> Iterator[ScaledRayServeEngine]:
    started = ScaledRayServeEngine(make_plan(material), handles).start()
    yield started
    started.stop()


class TestRayServeEngine(MaterialContract):
    def test_a_request_lost_before_its_first_piece_is_put_to_another(
        self, engine: RayServeEngine, handles: Handles, base: str
    ) -> None:
        handles.losing, handles.pieces = 1, 0
        assert self.run(collect(engine, self.ask(base)))[-1].finish_reason is not None

    def test_one_lost_in_the_middle_ends_with_an_error_that_says_to_ask_again(
        self, engine: RayServeEngine, handles: Handles, base: str
    ) -> None:
        handles.losing, handles.pieces = 1, 1
        with pytest.raises(Unavailable, match="died"):
            self.run(collect(engine, self.ask(base, ignore_end=True)))

    def test_it_is_scaled_by_us_or_by_ray_as_the_settings_say(self, material: Material) -> None:
        handles = Handles(make_plan(material))
        ours = ScaledRayServeEngine(make_plan(material), handles)
        assert isinstance(ours, Replicated) and ours.count_replicas() == 2
        assert isinstance(open_ray(make_plan(material)), Replicated)
        theirs = open_ray(make_plan(material, options={"autoscaling": {"target_ongoing_requests": 8}}))
        assert not isinstance(theirs, Replicated)
        with pytest.raises(InvalidInput):
            open_ray(make_plan(material, options={"cpu": 1}))

    def test_scaling_deploys_again_and_new_replicas_answer_for_adapters_loaded_before(
        self, engine: ScaledRayServeEngine, handles: Handles, base: str, adapters: dict[str, Path]
    ) -> None:
        with self.loaded(engine, adapters) as digests:
            engine.scale(3)
            assert handles.deployed[-1] == 3
            texts = [[d.text for d in self.run(collect(engine, self.ask(base, digests[0])))] for _ in range(3)]
        assert "".join(texts[0]) == "".join(texts[1]) == "".join(texts[2])


_REAL = """
import asyncio, os, sys
from pathlib import Path
from tests.contract.enginematerial import make_material
from tests.contract.test_ray_contract import SERVE
from espalier.core.config import EngineConfig
from espalier.core.errors import DigestMismatch
from espalier.core.ports import ChatRequest
from espalier.core.types import Message, SamplingSpec
from espalier.nn.base import load_base
from espalier.serve.engine import Engine
from espalier.serve.engines.plan import EnginePlan
from espalier.serve.engines.rayserve import open_ray

material = make_material(Path(sys.argv[1]))
name = f"path:{material.base}"
serve = SERVE.model_copy(update={"min_replicas": 1})
engine = open_ray(EnginePlan(name, name, serve, EngineConfig(kind="ray", options={"cpus": 0.5}), material.base)).start()
alone = Engine(load_base(name), SERVE).start()
for digest, folder in material.adapters.items():
    engine.load_adapter(digest, folder)
    alone.load_adapter(digest, folder)
try:
    engine.load_adapter("f" * 64, material.foreign)
except DigestMismatch:
    pass
else:
    raise SystemExit("another base's adapter was taken")
digests = ["", *material.adapters]

def ask(number):
    said = [Message("user", f"{number} asks this")]
    return ChatRequest(str(number), name, digests[number % 3], said, SamplingSpec(max_tokens=8, ignore_end=True))

async def read(asked, number):
    return "".join([delta.text async for delta in asked.stream(ask(number))])

async def read_all(asked):
    return await asyncio.gather(*(read(asked, number) for number in range(9)))

async def leave():
    stream = engine.stream(ask(0))
    await anext(stream)
    await stream.aclose()

assert asyncio.run(read_all(engine)) == asyncio.run(read_all(alone))
assert engine.count_prompt_tokens(ask(1)) == alone.count_prompt_tokens(ask(1))
asyncio.run(leave())
alone.stop()
engine.stop()
print("equal")
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("grpc_reflection") is None, reason="needs the extra ray-serve")
def test_a_real_ray_answers_as_the_embedded_engine_does(tmp_path: Path) -> None:
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", _REAL, str(tmp_path)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout.strip().endswith("equal"), done.stderr[-3000:]
