"""Aliases move and adapters are evicted under load: no request fails, and each is answered by what it was given."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from espalier.core.config import PolicyConfig, ServeConfig
from espalier.core.errors import Conflict, NotFound
from espalier.core.ids import make_id
from espalier.core.ports import ChatRequest
from espalier.core.refs import Ref
from espalier.core.types import Message, ModelVersion, SamplingSpec
from espalier.gateway.route import Target, resolve
from espalier.nn.base import load_base
from espalier.nn.lora import LoraSpec
from espalier.registry.aliases import promote, rollback
from espalier.registry.approvals import approve
from espalier.registry.versions import Registration, register
from espalier.serve.engine import Engine
from espalier.services.pool import ModelPool
from espalier.services.resolver import RegistryResolver
from espalier.store.store import Store, open_store
from espalier.store.workspace import init_workspace
from espalier.testing.tiny import make_tiny_adapter, make_tiny_base

pytestmark = pytest.mark.slow
VERSIONS = 6
MOVES = 200
CLIENTS = 12
TRUSTING = PolicyConfig(four_eyes=False, require_report=False, require_dataset=False)
SERVE = ServeConfig(max_batch=8, max_context_tokens=128, threads=1, max_adapters=3)
QUESTIONS = ["one two three", "what is it?", "x"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(init_workspace(tmp_path / "workspace"))
    yield opened
    opened.close()


@pytest.fixture
def versions(store: Store, base: Path, tmp_path: Path) -> list[ModelVersion]:
    """Approved versions of `support`, each with an adapter of its own."""
    digest, made = load_base(f"path:{base}").base_digest, []
    for seed in range(VERSIONS):
        folder = make_tiny_adapter(tmp_path / f"adapter-{seed}", base, LoraSpec(rank=2 + seed, alpha=8), seed=seed)
        adapter = store.artifacts.put("adapter", folder).digest
        asked = Registration(name="support", base=f"path:{base}", base_digest=digest, adapter=adapter)
        made.append(approve(store, TRUSTING, register(store, asked, actor="ann").ref, actor="bob"))
    return made


def ask(target: Target, text: str) -> ChatRequest:
    sampling = SamplingSpec(max_tokens=8, ignore_end=True)
    return ChatRequest(make_id("req"), target.base, target.adapter, [Message("user", text)], sampling)


def answers_alone(store: Store, base: Path, versions: list[ModelVersion]) -> dict[tuple[str, str], str]:
    """What each adapter says to each question, by an engine nobody else asks."""
    engine = Engine(load_base(f"path:{base}"), SERVE)
    said = {}
    for version in versions:
        engine.load_adapter(version.adapter, store.artifacts.materialise(version.adapter))
        sampling = SamplingSpec(max_tokens=8, ignore_end=True)
        generations = engine.generate([[Message("user", text)] for text in QUESTIONS], sampling, version.adapter)
        said |= {(version.adapter, text): each.text for text, each in zip(QUESTIONS, generations, strict=True)}
    return said


def test_aliases_move_and_adapters_go_with_no_failed_request(
    store: Store, base: Path, versions: list[ModelVersion]
) -> None:
    expected = answers_alone(store, base, versions)
    assert len(set(expected.values())) == len(expected)  # so that one adapter's answer is never another's
    resolver, pool = RegistryResolver(store, SERVE), ModelPool(store, SERVE)
    promote(store, versions[0].ref, "production", actor="eve")
    promote(store, versions[1].ref, "production", actor="eve")
    answered: list[str] = []

    async def client(number: int, moving: asyncio.Event) -> None:
        turn = 0
        while not moving.is_set() or turn < 5:
            turn += 1
            text = QUESTIONS[(number + turn) % len(QUESTIONS)]
            target = await asyncio.to_thread(resolve, resolver, "support")
            request = ask(target, text)
            if (number + turn) % 3:  # as the desk does; without it the stream loads by itself
                await asyncio.to_thread(pool.count_prompt_tokens, request)
            said = "".join([delta.text async for delta in pool.stream(request)])
            assert said == expected[target.adapter, text]
            answered.append(target.adapter)

    async def move(moving: asyncio.Event) -> None:
        draw = random.Random(7)
        for number in range(MOVES):
            while len(answered) <= number:  # as quick as the machine is, every move has its answer before the next
                await asyncio.sleep(0.001)
            if number % 5 == 4:
                await asyncio.to_thread(rollback, store, "support", "production", actor="eve")
            else:
                version = draw.choice(versions)
                await asyncio.to_thread(promote, store, version.ref, "production", actor="eve")
            if number % 7 == 0:  # on top of the evictions that three places for six adapters cause
                loaded = draw.choice(versions).adapter
                try:
                    await asyncio.to_thread(pool.unload, f"path:{base}", loaded)
                except NotFound:
                    continue
        moving.set()

    async def play() -> None:
        moving = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(client(number, moving))
            group.create_task(move(moving))

    try:
        asyncio.run(asyncio.wait_for(play(), 240))
        assert set(answered) == {version.adapter for version in versions}
        assert len(answered) >= MOVES
    finally:
        pool.stop()


def test_a_version_is_asked_for_by_the_digest_it_is_made_of_once_it_is_approved(
    store: Store, base: Path, versions: list[ModelVersion], tmp_path: Path
) -> None:
    resolver = RegistryResolver(store, SERVE)
    target = resolve(resolver, f"artifact:{versions[2].adapter}")
    assert (target.model, target.adapter) == (versions[2].ref, versions[2].adapter)
    folder = make_tiny_adapter(tmp_path / "pending", base, LoraSpec(rank=2), seed=99)
    pending = store.artifacts.put("adapter", folder).digest
    with pytest.raises(NotFound):
        resolve(resolver, f"artifact:{pending}")
    asked = Registration(name="support", base=f"path:{base}", base_digest=versions[0].base_digest, adapter=pending)
    register(store, asked, actor="ann")
    with pytest.raises(Conflict, match="PendingManualApproval"):
        resolve(resolver, f"artifact:{pending}")
    with pytest.raises(Conflict):
        resolver.find_version(Ref.parse("support@v7", kind="model"))
