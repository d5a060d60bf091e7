"""What the tests of batches share: files of lines, a house that answers them, and its end at any point."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from espalier.core.config import BatchConfig, GatewayConfig
from espalier.core.ports import ChatRequest, Delta
from espalier.gateway.assembly import open_desk
from espalier.gateway.batch.records import Batch, BatchEnd, Batches
from espalier.gateway.batch.runner import BatchRunner
from espalier.gateway.desk import Desk
from espalier.gateway.keys import ApiKey
from espalier.store.store import Store
from espalier.testing.provider import StrictProvider
from espalier.testing.resolver import FixedResolver

CONFIG = BatchConfig(max_in_flight=4, lease_s=60, sync_every_s=0.01)
TOKEN_NUSD = 1000


def line(name: str, words: str, model: str = "support", **more: Any) -> dict[str, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": words}], **more}
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}


def many(count: int) -> list[dict[str, Any]]:
    return [line(f"n{number}", f"a {number}") for number in range(count)]


def queue(store: Store, folder: Path, lines: list[Any], *, key: ApiKey | None = None, **more: Any) -> Batch:
    path = folder / "asked.jsonl"
    path.write_bytes(b"".join((raw if isinstance(raw, bytes) else json.dumps(raw).encode()) + b"\n" for raw in lines))
    sha256, size_bytes = store.blobs.put_file(path)
    return Batches(store).create(more.pop("shape", "openai"), path.name, sha256, size_bytes, key=key, **more)


class Forgetful(StrictProvider):
    """The same, but a request may come again: that is what a crash brings about. After `left` answers it is silent."""

    left = 10**9

    async def stream(self, request: ChatRequest) -> AsyncIterator[Delta]:
        if not self.left:
            await asyncio.Event().wait()
        self.left -= 1
        async for delta in super().stream(request):
            yield delta

    def _begin(self, request: ChatRequest) -> None:
        self.requests.pop(request.id, None)
        self.finished.discard(request.id)
        super()._begin(request)


class House:
    """A desk and a runner over it, for one test."""

    def __init__(self, store: Store, resolver: FixedResolver, config: GatewayConfig, provider: Any) -> None:
        self.store, self.provider = store, provider
        self.batches = Batches(store)
        self.desk: Desk = open_desk(store, provider, resolver, config)

    async def until(self, holds: Callable[[], Any], config: BatchConfig = CONFIG) -> None:
        """Work until something holds, then stop in order; the test's own time limit ends it."""
        await self.desk.start()
        runner = BatchRunner(self.store, self.desk, config)
        runner.start()
        try:
            while not holds():
                await asyncio.sleep(0.005)
        finally:
            await runner.stop()

    def end(self, batch: Batch) -> BatchEnd | None:
        return self.batches.get(batch.id).end

    def work_off(self, batch: Batch, config: BatchConfig = CONFIG) -> BatchEnd:
        asyncio.run(self.until(lambda: self.end(batch), config))
        end = self.end(batch)
        assert end is not None
        return end

    def journalled(self, batch: Batch) -> int:
        """Answers that are on disk."""
        progress = self.batches.get(batch.id).progress
        return progress.completed if progress else 0

    def read(self, sha256: str) -> list[dict[str, Any]]:
        return [json.loads(raw) for raw in self.store.blobs.read(sha256).splitlines()] if sha256 else []

    def usage(self) -> dict[str, int]:
        return {row.request: row.amount_nusd for row in self.store.ledger.list(kind="usage", limit=10_000)}


async def kill_at(house: House, batch: Batch, answers: int, *, keep_journal: bool) -> None:
    """Work until so many answers, and no more, are given, then end as a kill would: nothing is put down any more.

    They are in the journal, or else settled and nowhere in the journal.
    """
    config = CONFIG.model_copy(update={"sync_every_s": 0.01 if keep_journal else 60.0})
    await house.desk.start()
    house.provider.left = answers  # the others are under way when it ends, however quick the machine is
    runner = BatchRunner(house.store, house.desk, config)
    runner.start()
    while house.journalled(batch) < answers if keep_journal else len(house.usage()) < answers:
        await asyncio.sleep(0.005)
    if not keep_journal:
        work = runner._works[batch.id].work
        work._fresh.clear()
        work._put_down = lambda fresh: None  # type: ignore[method-assign]
    await runner.stop()
    house.provider.left = Forgetful.left
