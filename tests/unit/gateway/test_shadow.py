from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from espalier.core.config import GatewayConfig
from espalier.core.types import Deployment, LedgerEntry, Message, Shadow, Variant
from espalier.gateway.assembly import open_desk
from espalier.gateway.desk import Desk, Outcome
from espalier.gateway.keys import KeyRing
from espalier.store.store import Store
from espalier.testing.provider import StrictProvider
from espalier.testing.resolver import FixedResolver
from espalier.wire.openai.request import ChatCall


@pytest.fixture
def desk(store: Store, provider: StrictProvider, resolver: FixedResolver, config: GatewayConfig) -> Desk:
    shadows = (Shadow(model="model:support@v2"),)
    resolver.deployments["support"] = Deployment(
        name="support", revision=1, variants=(Variant(model="model:support@v1"),), shadows=shadows, action="shadow",
        actor="ann", at_ms=0,
    )  # fmt: skip
    return open_desk(store, provider, resolver, config)


def ask(desk: Desk, times: int = 1, key: object = None) -> list[str]:
    async def all_of_them() -> list[str]:
        call = ChatCall(model="support", messages=(Message("user", "one two three"),))
        completions = []
        for _ in range(times):
            ticket = desk.admit(call, key)  # type: ignore[arg-type]
            completions.append(await desk.complete(ticket))
        while desk.shadows._running:
            await asyncio.sleep(0.01)
        return [completion.resolved for completion in completions]

    return asyncio.run(all_of_them())


def rows(store: Store) -> Sequence[LedgerEntry]:
    return store.ledger.list(kind="usage")


def test_a_shadow_answers_a_copy_that_nobody_hears_or_pays_for(
    desk: Desk, store: Store, provider: StrictProvider
) -> None:
    key = KeyRing(store).create("test", budget_nusd=1_000_000).key
    assert ask(desk, key=key) == ["model:support@v1"]
    shadow, heard = rows(store)
    assert (heard.model, shadow.model) == ("model:support@v1", "model:support@v2")
    assert heard.key and not shadow.key
    assert shadow.detail["shadow_of"] == {"request": heard.request, "model": heard.model, "same_words": True}
    assert store.ledger.balance(key.account).spent_nusd == heard.amount_nusd
    asked = provider.requests[shadow.request]
    assert (asked.adapter, asked.lane) == ("b" * 64, "batch")


def test_a_shadow_that_cannot_answer_changes_nothing_for_the_client(desk: Desk, resolver: FixedResolver) -> None:
    deployment = resolver.deployments["support"]
    gone = deployment.model_copy(update={"shadows": (Shadow(model="model:support@v9"),)})
    resolver.deployments["support"] = gone
    assert ask(desk) == ["model:support@v1"]


def test_copies_beyond_what_may_run_at_once_are_dropped_and_counted(desk: Desk, provider: StrictProvider) -> None:
    async def flood() -> int:
        call = ChatCall(model="support", messages=(Message("user", "one two"),))  # two words: one stop at the gate
        tickets = [desk.admit(call, None) for _ in range(20)]
        first = provider.gate = asyncio.Event()
        answering = [asyncio.ensure_future(desk.complete(ticket)) for ticket in tickets]
        while provider.held < len(tickets):
            await asyncio.sleep(0.01)
        provider.gate = asyncio.Event()  # the originals go on, their shadows are held
        first.set()
        await asyncio.gather(*answering)
        dropped = desk.shadows.dropped
        await desk.shadows.stop()
        return dropped

    assert asyncio.run(flood()) == 12


def test_how_a_deployments_requests_end_is_told(desk: Desk, provider: StrictProvider) -> None:
    outcomes: list[Outcome] = []
    desk.on_outcome = outcomes.append
    ask(desk)
    provider.fail_after = 1
    with pytest.raises(RuntimeError):
        ask(desk)
    assert [outcome.failed for outcome in outcomes] == [False, True]
    assert outcomes[0].target.deployment == "support" and outcomes[0].latency_ms >= 0


def test_a_usage_row_names_the_deployment_it_was_asked_through(desk: Desk, store: Store) -> None:
    ask(desk)
    assert {row.detail["deployment"] for row in rows(store)} == {"support"}
