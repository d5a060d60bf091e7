"""A gateway put together from a store, a provider and a resolver: what `espalier serve` and the tests both use."""

from __future__ import annotations

import asyncio

from espalier.core.config import BatchConfig, GatewayConfig
from espalier.core.ports import ChatProvider
from espalier.gateway.app import Gateway
from espalier.gateway.budget import Budgets
from espalier.gateway.desk import Desk
from espalier.gateway.exchange import App
from espalier.gateway.holder import Holder
from espalier.gateway.keys import KeyRing
from espalier.gateway.limits import RateLimiter
from espalier.gateway.price import PriceList
from espalier.gateway.route import Resolver
from espalier.store.store import Store


def open_desk(store: Store, provider: ChatProvider, resolver: Resolver, config: GatewayConfig) -> Desk:
    """The desk of one process; `await desk.start()` before use, `desk.stop()` after. Raises InvalidInput (prices)."""
    holder = Holder(store.workspace.folder / "gateway")
    budgets = Budgets(store.ledger, holder, longest_request_ms=round(config.request_timeout_s * 1000))
    limiter = RateLimiter(config.requests_per_minute)
    return Desk(provider, resolver, budgets, PriceList(config.prices), limiter)


def open_gateway(
    store: Store, provider: ChatProvider, resolver: Resolver, config: GatewayConfig, fallback: App | None = None
) -> Gateway:
    """The ASGI app over a desk of its own."""
    return Gateway(open_desk(store, provider, resolver, config), KeyRing(store), config, fallback)


def add_batches(gateway: Gateway, store: Store, config: BatchConfig, most_line_bytes: int, *, work: bool) -> None:
    """Have a gateway take files and batches, and, with `work`, answer them when nobody else asks."""
    from espalier.gateway.batch.bedrock import BedrockRoutes
    from espalier.gateway.batch.routes import BatchRoutes
    from espalier.gateway.batch.runner import BatchRunner

    # In threads apart from the desk's: while a large file is taken in, requests are authenticated and settled.
    gateway.doors += [
        BatchRoutes(store, config, asyncio.to_thread),
        BedrockRoutes(store, config, asyncio.to_thread),
    ]
    if work:
        gateway.beside.append(BatchRunner(store, gateway.desk, config, most_line_bytes=most_line_bytes))
