"""One batch in a thread of its own: what it broke down with is told, and stopping it then is no fault."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from espalier.core.errors import Unavailable
from espalier.services.batchworker import BatchWorker
from espalier.services.context import Context


def test_a_worker_that_broke_down_is_stopped_all_the_same_and_tells_why(monkeypatch: pytest.MonkeyPatch) -> None:
    async def break_down(worker: Any) -> None:
        worker._loop, worker._ending = asyncio.get_running_loop(), asyncio.Event()
        raise Unavailable("the model is gone")

    monkeypatch.setattr(BatchWorker, "_work", break_down)
    worker = BatchWorker(cast(Context, None), "batch_1").start()
    worker._thread.join()  # its loop is closed by now, though it was open when it was looked up
    assert worker._loop is not None and worker._loop.is_closed()
    worker.stop()
    with pytest.raises(Unavailable, match="the model is gone"):
        worker.check()
