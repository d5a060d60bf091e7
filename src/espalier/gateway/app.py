"""The data plane: OpenAI's chat endpoint on raw ASGI, in front of whatever else the server offers.

    POST /v1/chat/completions     GET /v1/models     GET /v1/models/{id}     GET /metrics
    GET /healthz (the process lives)     GET /readyz (what clients are pointed to is loaded)

Every other path, and every websocket, goes to the fallback app untouched. Knows HTTP and OpenAI's shapes; what a
request may do and costs is the desk's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from functools import partial
from typing import Protocol, cast

from espalier.core.config import GatewayConfig
from espalier.core.errors import EspalierError, NotFound, Unauthenticated, Unavailable, did_you_mean
from espalier.core.ports import Delta
from espalier.gateway.desk import Desk
from espalier.gateway.exchange import App, Exchange, Message, Receive, Scope, Send
from espalier.gateway.keys import ApiKey, KeyRing
from espalier.gateway.metrics import Metrics
from espalier.gateway.ticket import Ticket
from espalier.wire.openai import chunks, failure, listing, request, response

_CHAT, _MODELS, _METRICS = "/v1/chat/completions", "/v1/models", "/metrics"
_HEALTH, _READY = "/healthz", "/readyz"
_CLIENT_LEFT = 499  # no response was begun; nginx's code for it
_DRAIN_S = 10.0
_log = logging.getLogger("espalier.gateway")


class Door(Protocol):
    """Routes of another kind under the same roof, such as batches."""

    name: str  # as metrics know it

    def owns(self, path: str) -> bool: ...

    async def answer(
        self, scope: Scope, exchange: Exchange, authenticate: Callable[[Exchange], Awaitable[ApiKey | None]]
    ) -> None:
        """Answer one request; it may raise EspalierError before anything was sent."""
        ...


class Runs(Protocol):
    """Work that goes on beside the requests, from the gateway's start to its stop."""

    def start(self) -> None: ...

    async def stop(self) -> None: ...


class Gateway:
    """An ASGI app. The desk's `on_settled` is taken over for the metrics."""

    def __init__(self, desk: Desk, keys: KeyRing, config: GatewayConfig, fallback: App | None = None) -> None:
        self.desk = desk
        self.keys = keys
        self._config = config
        self._fallback = fallback
        self._running: set[asyncio.Future[None]] = set()
        self._stopping = False
        self.count_cold: Callable[[], int] = lambda: 0  # models that are still to be loaded before we are ready
        self.doors: list[Door] = []
        self.beside: list[Runs] = []
        self.metrics = Metrics()
        desk.on_settled = self.metrics.count_answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        route = self._find_route(scope["path"]) if scope["type"] == "http" else None
        if route is not None:
            await self._handle(route, scope, Exchange(scope, receive, send, self._config.reader_patience_s))
        elif self._fallback is not None:
            await self._fallback(scope, receive, send)
        elif scope["type"] == "http":
            exchange = Exchange(scope, receive, send)
            text = f"no route {scope['method']} {scope['path']}"[:200]
            await exchange.send_bytes(404, failure.encode_fault(text, "invalid_request_error", "unknown_url"))

    def _find_route(self, path: str) -> tuple[str, str, Callable[[Scope, Exchange], Awaitable[None]]] | None:
        """(name, method, handler) of a path that is ours."""
        routes = {
            _CHAT: ("chat", "POST", self._chat),
            _MODELS: ("models", "GET", self._list_models),
            _HEALTH: ("health", "GET", self._report_health),
            _READY: ("ready", "GET", self._report_readiness),
            _METRICS: ("metrics", "GET", self._report_metrics),
        }
        if path.startswith(_MODELS + "/"):
            return ("models", "GET", self._show_model)
        for door in self.doors:
            if door.owns(path):
                return (door.name, "", partial(self._pass_on, door))
        return routes.get(path)

    async def _pass_on(self, door: Door, scope: Scope, exchange: Exchange) -> None:
        await door.answer(scope, exchange, self._authenticate)

    async def _handle(
        self, route: tuple[str, str, Callable[[Scope, Exchange], Awaitable[None]]], scope: Scope, exchange: Exchange
    ) -> None:
        name, method, handler = route
        began_s = time.monotonic()
        try:
            if method and scope["method"] != method:
                exchange.extra.append((b"allow", method.encode()))
                text = f"{scope['path']} takes {method}, not {scope['method']}"[:200]
                fault = failure.encode_fault(text, "invalid_request_error", "method_not_supported")
                await exchange.send_bytes(405, fault)
            else:
                await handler(scope, exchange)
        except EspalierError as error:
            await exchange.send_error(error)
        except asyncio.CancelledError:  # whoever runs us ends: the client is told, and there is nobody else to tell
            await exchange.cut_off(_stopped())
        except Exception:  # noqa: BLE001 - the boundary: a bug becomes one line for the client and a traceback in the log
            _log.exception("request %s failed", exchange.request_id)
            await exchange.send_error(
                EspalierError("something went wrong inside", hint=f"see {exchange.request_id} in the log")
            )
        status = exchange.status or _CLIENT_LEFT
        self.metrics.count_request(name, status)
        _log.info("%s %s %d in %.0f ms", exchange.request_id, name, status, (time.monotonic() - began_s) * 1000)

    async def _authenticate(self, exchange: Exchange) -> ApiKey | None:
        secret = exchange.bearer()
        if secret:
            return await self.desk.off_loop(self.keys.authenticate, secret)
        if self._config.require_key:
            raise Unauthenticated("no API key", hint="send `Authorization: Bearer esp_...`")
        return None

    async def _chat(self, scope: Scope, exchange: Exchange) -> None:
        if self._stopping:
            raise Unavailable("the server is stopping", hint="try again in a moment")
        key = await self._authenticate(exchange)
        call = request.decode_chat(await exchange.body(self._config.max_body_bytes))
        ticket = await self.desk.admit_soon(call, key, exchange.request_id)
        exchange.extra.append((b"x-espalier-model", ticket.target.model.encode()))
        exchange.extra.append((b"x-espalier-adapter", (ticket.target.adapter or "base").encode()))
        self.metrics.in_flight += 1
        try:
            await self._answer(ticket, exchange)
        finally:
            self.metrics.in_flight -= 1
            await self.desk.close(ticket)

    async def _answer(self, ticket: Ticket, exchange: Exchange) -> None:
        """Answer until done, until the client leaves, or until time is up; the first of the three ends the others."""
        work = self._send_events if ticket.call.stream else self._send_whole
        answering = asyncio.ensure_future(work(ticket, exchange))
        leaving = asyncio.ensure_future(exchange.wait_for_leaving())
        self._running.add(answering)
        try:
            ended, _ = await asyncio.wait(
                {answering, leaving}, timeout=self._config.request_timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            leaving.cancel()
            answering.cancel()  # does nothing to one that is done
            with suppress(asyncio.CancelledError):
                await asyncio.wait({answering, leaving})
            self._running.discard(answering)
        if not answering.cancelled():
            answering.result()  # raises what it raised
        elif self._stopping:
            raise _stopped()
        elif not ended:
            wait_s = self._config.request_timeout_s
            raise Unavailable(f"no answer within {wait_s:g} s", hint="ask for fewer tokens (max_tokens)")

    async def _send_whole(self, ticket: Ticket, exchange: Exchange) -> None:
        completion = await self.desk.complete(ticket)
        await exchange.send_json(200, response.encode_completion(completion, ticket.started_ms // 1000))

    async def _send_events(self, ticket: Ticket, exchange: Exchange) -> None:
        """The response begins with the first delta, so that a refusal before it still has a status of its own."""
        call, target = ticket.call, ticket.target
        writer = chunks.ChunkWriter(
            ticket.id, target.model, ticket.started_ms // 1000, call.include_usage, target.adapter
        )  # fmt: skip
        async with aclosing(cast("AsyncGenerator[Delta, None]", self.desk.answer(ticket))) as deltas:
            async for delta in deltas:
                event = writer.write(delta)
                if not exchange.status:
                    await exchange.start_events()
                if event:
                    await exchange.send_event(event)
        if call.include_usage:
            await exchange.send_event(writer.usage(ticket.used()))
        await exchange.send_event(chunks.DONE, last=True)

    async def _list_models(self, scope: Scope, exchange: Exchange) -> None:
        await exchange.send_json(200, listing.encode_models(await self._models(exchange)))

    async def _show_model(self, scope: Scope, exchange: Exchange) -> None:
        wanted = scope["path"].removeprefix(_MODELS + "/")
        models = {model.id: model for model in await self._models(exchange)}
        if wanted not in models:
            raise NotFound(f"no model {wanted!r:.100} is served here", hint=did_you_mean(wanted, models), where="model")
        await exchange.send_json(200, listing.encode_model(models[wanted]))

    async def _models(self, exchange: Exchange) -> list[listing.Listing]:
        key = await self._authenticate(exchange)
        models = await self.desk.off_loop(self.desk.resolver.list_models)
        return [model for model in models if key is None or key.allows((model.id, model.id.partition("@")[0]))]

    async def _report_health(self, scope: Scope, exchange: Exchange) -> None:
        await exchange.send_json(503 if self._stopping else 200, {"status": "stopping" if self._stopping else "ok"})

    async def _report_readiness(self, scope: Scope, exchange: Exchange) -> None:
        cold = self.count_cold()
        status = "stopping" if self._stopping else "warming" if cold else "ready"
        await exchange.send_json(200 if status == "ready" else 503, {"status": status, "cold": cold})

    async def _report_metrics(self, scope: Scope, exchange: Exchange) -> None:
        await exchange.send_bytes(200, self.metrics.render().encode(), b"text/plain; version=0.0.4; charset=utf-8")

    async def start(self) -> None:
        """Settle what a process that died left behind, before the first request is taken."""
        await self.desk.start()
        for work in self.beside:
            work.start()

    async def stop(self) -> None:
        """Let running answers finish for a while, then settle what is left."""
        self._stopping = True
        for work in self.beside:
            await work.stop()
        if self._running:
            await asyncio.wait(set(self._running), timeout=_DRAIN_S)
        for answering in list(self._running):
            answering.cancel()
        if self._running:
            await asyncio.wait(set(self._running))
        await self.desk.shadows.stop()
        await asyncio.to_thread(self.desk.stop)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Our start and stop around the fallback's: we start last and stop first."""

        async def observe() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self.start()
            elif message["type"] == "lifespan.shutdown":
                await self.stop()
            return message

        if self._fallback is not None:
            await self._fallback(scope, observe, send)
            return
        await observe()
        await send({"type": "lifespan.startup.complete"})
        await observe()
        await send({"type": "lifespan.shutdown.complete"})


def _stopped() -> Unavailable:
    return Unavailable("the server stopped in the middle of the answer", hint="try again in a moment")
