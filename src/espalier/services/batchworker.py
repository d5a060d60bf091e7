"""`BatchWorker`: one batch worked on in this process, in a thread with a loop, engine and desk of its own.

What `espalier batch run` uses where no server runs. Joins pool, resolver, desk and runner; knows not what they do.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from espalier.services.context import Context


class BatchWorker:
    """Works on batch `id` from `start` to `stop`; what is under way at `stop` is resumed by whoever works next."""

    def __init__(self, context: Context, id: str) -> None:
        self._context, self._id = context, id
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Event | None = None
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="batch worker", daemon=True)

    def start(self) -> Self:
        """Begin; returns when the loop runs, which is before any model is loaded."""
        self._thread.start()
        self._ready.wait()
        return self

    def check(self) -> None:
        """Raises what the worker broke down with."""
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Let go of the batch: the journal is on disk, the lease given back."""
        if self._loop is not None and self._ending is not None:
            with suppress(RuntimeError):  # it broke down, and its loop is closed by now
                self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._work())
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            self._error = error
        finally:
            self._ready.set()

    async def _work(self) -> None:
        from espalier.gateway.assembly import open_desk
        from espalier.gateway.batch.runner import BatchRunner
        from espalier.services.pool import ModelPool
        from espalier.services.resolver import RegistryResolver

        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        store, config = self._context.store, self._context.config.config
        pool = ModelPool(store, config.serve)
        desk = open_desk(store, pool, RegistryResolver(store, config.serve), config.gateway)
        runner = BatchRunner(
            store, desk, config.batch, most_line_bytes=config.gateway.max_body_bytes, only=self._id
        )  # fmt: skip
        try:
            await desk.start()
            runner.start()
            await self._ending.wait()
            await runner.stop()
        finally:
            await asyncio.to_thread(desk.stop)
            await asyncio.to_thread(pool.stop)
