"""The runner of batches as its process comes and goes."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from espalier.core.config import BatchConfig, GatewayConfig
from espalier.gateway.assembly import open_desk
from espalier.gateway.batch.records import Batches, job_id
from espalier.gateway.batch.runner import BatchRunner
from espalier.store.store import Store
from espalier.testing.provider import StrictProvider
from espalier.testing.resolver import FixedResolver


def test_a_batch_that_is_just_being_taken_when_the_process_stops_is_given_back(
    store: Store, resolver: FixedResolver, config: GatewayConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"model": "support", "messages": [{"role": "user", "content": "hello"}]}
    asked = {"custom_id": "one", "method": "POST", "url": "/v1/chat/completions", "body": body}
    (tmp_path / "asked.jsonl").write_text(json.dumps(asked))
    batch = Batches(store).create("openai", "asked.jsonl", *store.blobs.put_file(tmp_path / "asked.jsonl"))
    desk = open_desk(store, StrictProvider(), resolver, config)
    taking, go_on = threading.Event(), threading.Event()
    get = store.records.get

    def look_up(kind: str, *rest: Any) -> Any:
        if kind == "batch":
            taking.set()
            assert go_on.wait(20)
        return get(kind, *rest)

    async def play() -> None:
        await desk.start()
        runner = BatchRunner(store, desk, BatchConfig())
        runner.start()
        assert await asyncio.to_thread(taking.wait, 20)
        stopping = asyncio.ensure_future(runner.stop())
        await asyncio.sleep(0)
        go_on.set()
        await stopping

    monkeypatch.setattr(store.records, "get", look_up)
    asyncio.run(play())
    desk.stop()
    job = store.jobs.get(job_id(batch.id))
    assert (job.status, job.attempts) == ("queued", 0)
