"""`espalier serve`: one process with the OpenAI endpoint, the native API, the pages and a worker on the queue.

The composition root: the only place where gateway, API, pages and engines meet. Knows how they are joined, not what
they do.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.core.errors import Conflict, MissingExtra
from espalier.core.types import Principal

if TYPE_CHECKING:
    from espalier.gateway.app import Gateway
    from espalier.services.context import Context


def serve(context: Context, *, warm: bool = True, announce: Any = None, stopping: Any = None) -> None:
    """Answer until stopped by Ctrl-C or SIGTERM; answers under way are finished first.

    `announce(url)` is called once connections are accepted, `stopping()` when they no longer are. Raises Conflict when
    the port is taken, and InvalidInput for settings that no base could be served with.
    """
    import uvicorn

    from espalier.services.engines import choose_engine
    from espalier.services.ownserver import server_url

    serve_config = context.config.config.serve
    choose_engine("", serve_config)  # reads every row: what is misspelt is told now, not to the first client
    listener = _listen(serve_config.host, serve_config.port)
    host, port = listener.getsockname()[:2]
    url = server_url(serve_config.model_copy(update={"host": host, "port": port}))
    process = _Process(context, url)
    app = process.build()
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on", timeout_graceful_shutdown=30)

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            if stopping and not self.should_exit:
                stopping()
            super().handle_exit(sig, frame)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            await super().shutdown(sockets)
            if self.force_exit:  # Ctrl-C twice: nobody is waited for, but all are told, and what they used is settled
                for task in self.server_state.tasks:
                    task.cancel()
                await self.lifespan.shutdown()  # does nothing where it has been

    server = Server(config)
    if warm:
        process.warm()
    try:
        asyncio.run(_run(server, listener, lambda: announce(url) if announce else None))
    finally:
        process.stop()


class _Process:
    """What one serving process is made of."""

    def __init__(self, context: Context, url: str) -> None:
        from espalier.gateway.keys import KeyRing
        from espalier.services.capacitybook import CapacityKeeper
        from espalier.services.pool import ModelPool
        from espalier.services.resolver import RegistryResolver
        from espalier.services.rollouts import Rollouts
        from espalier.services.warming import Warming

        self._url = url
        self._config = context.config.config
        self._keys = KeyRing(context.store)
        self._pool = ModelPool(context.store, self._config.serve)
        self._warming = Warming(context.store, self._pool)
        self._context = replace(context, hosting=self._pool)
        self._worker: Any = None
        self._rollouts = Rollouts(context.store)
        self._resolver = RegistryResolver(context.store, self._config.serve)
        self._capacity = CapacityKeeper(self._resolver.book, self._pool.hold)

    def build(self) -> Gateway:
        from espalier.api.app import build_api
        from espalier.gateway.assembly import add_batches, open_gateway

        api = build_api(lambda: self._context, self.authenticate)
        self._mount_pages(api)
        if self._config.serve.worker:
            from espalier.services.worker import Worker

            self._worker = Worker(self._context)
            self._worker.start()
        gateway = open_gateway(self._context.store, self._pool, self._resolver, self._config.gateway, fallback=api)
        gateway.desk.on_outcome = self._rollouts.note
        gateway.count_cold = self._warming.count_cold
        serve, most_line_bytes = self._config.serve, self._config.gateway.max_body_bytes
        add_batches(gateway, self._context.store, self._config.batch, most_line_bytes, work=serve.worker)
        self._rollouts.start()
        self._capacity.start()
        return gateway

    def authenticate(self, secret: str | None) -> Principal:
        """The identity of an API key. Raises Unauthenticated."""
        return self._keys.authenticate(secret or "").principal

    def warm(self) -> None:
        """Load what clients are pointed to while the first of them may ask already; `/readyz` tells when it is done."""
        self._warming.start()

    def stop(self) -> None:
        self._capacity.stop()
        self._rollouts.stop()
        if self._worker is not None:
            self._worker.stop()
        self._warming.stop()
        self._pool.stop()

    def _mount_pages(self, api: Any) -> None:
        if not self._config.serve.web:
            return
        from espalier.services.dispatch import call_operation
        from espalier.web.pages import mount_pages

        storage = self._context.workspace.folder / "web"
        with contextlib.suppress(MissingExtra):  # a server without the extra serves everything but the pages
            mount_pages(
                api,
                call=lambda who, name, fields: call_operation(self._context.confine(), who, name, fields),
                authenticate=self.authenticate,
                storage=Path(storage),
                base_url=lambda: self._url,
            )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise Conflict(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            hint="stop what runs there, or choose another: --set serve.port=0 takes a free one",
        ) from None
    return listener


async def _run(server: Any, listener: socket.socket, started: Any) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # not on Windows
            loop.add_signal_handler(number, lambda: setattr(server, "should_exit", True))
    task = asyncio.ensure_future(server.serve(sockets=[listener]))
    while not server.started and not task.done():
        await asyncio.sleep(0.01)
    if not task.done():
        started()
    await task
