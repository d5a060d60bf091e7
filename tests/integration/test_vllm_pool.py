"""A base that the settings give to vLLM, asked through the pool as the gateway asks: adapters out of the store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from espalier.core.config import EngineConfig, ServeConfig
from espalier.core.errors import DigestMismatch, NotFound
from espalier.core.ids import make_id
from espalier.core.ports import ChatProvider, ChatRequest
from espalier.core.types import Message, SamplingSpec
from espalier.nn.lora import LoraSpec
from espalier.services.pool import ModelPool
from espalier.store.store import Store, open_store
from espalier.store.workspace import init_workspace
from espalier.testing.contracts.provider import collect, text_of
from espalier.testing.tiny import make_tiny_adapter, make_tiny_base
from espalier.testing.vllm.server import VllmDouble, VllmSettings, serve_vllm


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def double(base: Path) -> Iterator[VllmDouble]:
    with serve_vllm(VllmSettings(base, "served")) as double:
        yield double


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(init_workspace(tmp_path / "project"))
    yield opened
    opened.close()


def ask(provider: ChatProvider, base: Path, adapter: str = "") -> str:
    request = ChatRequest(
        make_id("req"), f"path:{base}", adapter, [Message("user", "hello")], SamplingSpec(max_tokens=8)
    )

    async def answer() -> str:
        await asyncio.to_thread(provider.count_prompt_tokens, request)
        deltas = await collect(provider, request)
        assert deltas[-1].adapter == adapter
        return text_of(deltas)

    return asyncio.run(asyncio.wait_for(answer(), 240))


def test_a_base_given_to_vllm_answers_as_the_one_in_this_process(
    base: Path, double: VllmDouble, store: Store, tmp_path: Path
) -> None:
    specs = {"one": LoraSpec(rank=4, alpha=8), "two": LoraSpec(rank=4, alpha=8, ranks={"q_proj": 2})}
    digests = [
        store.artifacts.put("adapter", make_tiny_adapter(tmp_path / name, base, spec, seed=3)).digest
        for name, spec in specs.items()
    ]
    elsewhere = ServeConfig(engines={"path:*": EngineConfig(kind="vllm", url=double.url)})
    theirs, ours = ModelPool(store, elsewhere), ModelPool(store, ServeConfig(max_batch=2))
    try:
        answers = [[ask(pool, base, adapter) for adapter in ("", *digests)] for pool in (theirs, ours)]
        assert answers[0] == answers[1]
        assert len(set(answers[0])) == 3
        assert set(double.loras) == set(digests)
        theirs.unload(f"path:{base}", digests[0])
        assert set(double.loras) == {digests[1]}
        assert ask(theirs, base, digests[0]) == answers[0][1]  # loaded anew, as it is asked for
    finally:
        theirs.stop()
        ours.stop()


def test_what_does_not_belong_to_the_base_never_reaches_vllm(
    base: Path, double: VllmDouble, store: Store, tmp_path: Path
) -> None:
    other = make_tiny_base(tmp_path / "other", seed=4)
    foreign = store.artifacts.put("adapter", make_tiny_adapter(tmp_path / "foreign", other, LoraSpec(rank=2))).digest
    pool = ModelPool(store, ServeConfig(engines={"path:*": EngineConfig(kind="vllm", url=double.url)}))
    try:
        with pytest.raises(DigestMismatch):
            ask(pool, base, foreign)
        with pytest.raises(NotFound):
            ask(pool, base, "0" * 64)
        assert foreign not in double.loras
        assert ask(pool, base)
    finally:
        pool.stop()
