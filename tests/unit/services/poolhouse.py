"""What the tests of the pool share: an engine without a model, questions, adapters that say anything."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import torch

from espalier.core.ids import make_id
from espalier.core.ports import ChatRequest, Delta, EngineLoad, ReservedShare
from espalier.core.types import Message, SamplingSpec
from espalier.nn.adapters import attach_adapters, save_adapter
from espalier.nn.base import load_base
from espalier.nn.lora import LoraSpec
from espalier.services.pool import ModelPool
from espalier.store.store import Store

ANSWER_TOKENS = 6


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
