"""What the gateway tells an engine and the ledger of flows and reservations, and when it sends to ask again."""

from __future__ import annotations

import asyncio

import pytest

from espalier.core.config import GatewayConfig
from espalier.core.errors import BudgetExceeded, EspalierError, RateLimited, Unavailable
from espalier.core.types import Message
from espalier.gateway.assembly import open_desk
from espalier.gateway.exchange import retry_headers
from espalier.gateway.keys import KeyRing
from espalier.gateway.limits import RateLimiter
from espalier.gateway.route import ReservationTable
from espalier.store.store import Store
from espalier.testing.provider import StrictProvider
from espalier.testing.resolver import FixedResolver
from espalier.wire.openai.request import ChatCall


def call(model: str = "support") -> ChatCall:
    return ChatCall(model=model, messages=(Message("user", "one two"),))


@pytest.mark.parametrize("model", ["support", "provisioned:gold"])
def test_a_request_goes_to_the_engine_with_its_payers_flow_and_its_reservation(
    model: str, store: Store, provider: StrictProvider, resolver: FixedResolver, config: GatewayConfig
) -> None:
    resolver.reservations = ReservationTable({"model:support@v1": "gold"}, {"gold": "support@production"})
    desk = open_desk(store, provider, resolver, config)
    key = KeyRing(store).create("test").key
    ticket = desk.admit(call(model), key)
    asyncio.run(desk.complete(ticket))
    request = provider.requests[ticket.id]
    assert (request.flow, request.reservation, request.lane) == (key.id, "gold", "interactive")
    rows = [entry for entry in store.ledger.find(ticket.id) if entry.kind == "usage"]
    assert [row.detail["reservation"] for row in rows] == ["gold"]


def test_without_a_key_or_a_reservation_the_flow_is_the_models(
    store: Store, provider: StrictProvider, resolver: FixedResolver, config: GatewayConfig
) -> None:
    desk = open_desk(store, provider, resolver, config)
    ticket = desk.admit(call(), None)
    asyncio.run(desk.complete(ticket))
    assert (provider.requests[ticket.id].flow, provider.requests[ticket.id].reservation) == ("support", "")
    assert "reservation" not in store.ledger.find(ticket.id)[-1].detail


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (RateLimited("x", retry_after_s=2.2), {b"retry-after": b"3", b"retry-after-ms": b"2200"}),
        (Unavailable("x", retry_after_s=0.01), {b"retry-after": b"1", b"retry-after-ms": b"10"}),
        (BudgetExceeded("x"), {}),
    ],
)
def test_an_error_that_knows_when_to_ask_again_says_so_in_headers(
    error: EspalierError, headers: dict[bytes, bytes]
) -> None:
    assert dict(retry_headers(error)) == headers


def test_a_key_over_its_rate_is_told_when_its_next_request_is_allowed() -> None:
    limiter = RateLimiter(6, clock_s=lambda: 0.0)
    for _ in range(6):
        limiter.take("key")
    with pytest.raises(RateLimited) as caught:
        limiter.take("key")
    assert caught.value.retry_after_s == pytest.approx(10.0)
