"""`EngineReplica`: the embedded engine as the class of a Ray Serve deployment. Knows no cluster and no other replica.

What goes in and out are plain JSON values, errors of ours among them, so that Ray carries no object of ours. A request
names its adapter's folder: whichever replica gets it loads what it lacks, and lets go what was not used longest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from espalier.core.config import ServeConfig
from espalier.core.ports import ChatRequest, Delta
from espalier.serve.footprint import folder_bytes
from espalier.serve.replicas.frames import Frame, decode_request, encode_delta, encode_error
from espalier.serve.residency import Residency
from espalier.serve.warming import warm


class EngineReplica:
    """Loads `place` when it is made. `serve`: the server's settings as JSON; threads is what this replica may use."""

    def __init__(self, base: str, place: str, serve: Frame) -> None:
        from espalier.nn.base import load_base
        from espalier.serve.engine import Engine

        config = ServeConfig.model_validate(serve)
        loaded = load_base(place, threads=config.threads, fetch=False)
        self.engine = Engine(replace(loaded, spec=base), config).start()
        self._base = base
        self._folders: dict[str, Path] = {}
        self._adapters: Residency[str] = Residency(
            "adapter",
            self._load,
            lambda digest, _: self.engine.unload_adapter(digest),
            budget_bytes=config.adapter_memory_bytes,
            most=config.max_adapters,
            patient=True,
        )
        self._warm = False

    async def stream(self, said: Frame, folder: str) -> AsyncIterator[Frame]:
        """Pieces as `encode_delta` makes them; an error is the last one, {"error": ...}."""
        request = decode_request(said)
        if not self._warm:
            self._warm = True
            await warm(self.engine, self._base)
        lease = self._acquire(request.adapter, folder) if request.adapter else None
        try:
            if lease is not None:
                await asyncio.wrap_future(lease.loaded)
            async with aclosing(cast("AsyncGenerator[Delta, None]", self.engine.stream(request))) as deltas:
                async for delta in deltas:
                    yield encode_delta(delta)
        except Exception as error:  # noqa: BLE001 - the boundary: the asker is told in our words, not in Ray's
            yield {"error": encode_error(error)}
        finally:
            if lease is not None:
                lease.release()

    async def count_prompt_tokens(self, said: Frame) -> Frame:
        """{"value": tokens} or {"error": ...}."""
        request: ChatRequest = decode_request(said)
        return await _reply(asyncio.to_thread(self.engine.count_prompt_tokens, request))

    async def load_adapter(self, digest: str, folder: str) -> Frame:
        """Load it here, so that one that does not fit is refused before it is asked for."""
        lease = self._acquire(digest, folder)
        try:
            return await _reply(asyncio.wrap_future(lease.loaded))
        finally:
            lease.release()

    async def check_health(self) -> None:
        """What Ray Serve asks from time to time; it replaces a replica that raises."""
        if not self.engine.answering:
            raise RuntimeError("the engine has ended by itself")

    def _acquire(self, digest: str, folder: str) -> Any:
        self._folders[digest] = Path(folder)
        return self._adapters.acquire(digest)

    def _load(self, digest: str) -> tuple[str, int]:
        folder = self._folders[digest]
        self.engine.load_adapter(digest, folder)
        return digest, folder_bytes(folder)


async def _reply(work: Any) -> Frame:
    try:
        return {"value": await work}
    except Exception as error:  # noqa: BLE001 - the boundary, as above
        return {"error": encode_error(error)}
