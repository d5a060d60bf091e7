"""Liveness and readiness are two questions: the process lives from the start, and is ready once models are loaded."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from espalier.core.config import GatewayConfig
from espalier.gateway.app import Gateway
from espalier.gateway.assembly import open_gateway
from espalier.store.store import Store
from espalier.testing.provider import StrictProvider
from espalier.testing.resolver import FixedResolver


def get(gateway: Gateway, path: str) -> tuple[int, Any]:
    """Status and JSON, asked without a key."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(gateway({"type": "http", "method": "GET", "path": path, "headers": []}, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


def test_it_lives_while_it_is_warming_and_is_ready_when_nothing_is_cold(
    store: Store, provider: StrictProvider, resolver: FixedResolver, config: GatewayConfig
) -> None:
    gateway = open_gateway(store, provider, resolver, config)
    gateway.count_cold = lambda: 2
    assert get(gateway, "/readyz") == (503, {"status": "warming", "cold": 2})
    assert get(gateway, "/healthz")[0] == 200
    gateway.count_cold = lambda: 0
    assert get(gateway, "/readyz") == (200, {"status": "ready", "cold": 0})
    asyncio.run(gateway.stop())
    assert get(gateway, "/readyz") == (503, {"status": "stopping", "cold": 0})
    assert get(gateway, "/healthz")[0] == 503
