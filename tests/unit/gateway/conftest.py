"""A store in a temporary workspace, a table of models, a strict provider, and a house that answers batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.gateway.batchhouse import Forgetful, House

from espalier.core.config import GatewayConfig, PriceConfig
from espalier.core.types import SamplingSpec
from espalier.gateway.keys import ApiKey, KeyRing
from espalier.gateway.route import Target
from espalier.store.store import Store, open_store
from espalier.store.workspace import init_workspace
from espalier.testing.provider import StrictProvider
from espalier.testing.resolver import FixedResolver

BASE = "builtin:seedling"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(init_workspace(tmp_path / "project"))
    yield opened
    opened.close()


@pytest.fixture
def provider() -> StrictProvider:
    return StrictProvider()


@pytest.fixture
def resolver() -> FixedResolver:
    one = Target("model:support@v1", BASE, "a" * 64, 64, SamplingSpec(max_tokens=20))
    two = Target("model:support@v2", BASE, "b" * 64, 64, SamplingSpec(max_tokens=20))
    versions = {"support@production": one, "support@v1": one, "support@v2": two}
    return FixedResolver(versions, {BASE: Target(BASE, BASE, "", 64, SamplingSpec(max_tokens=20))})


@pytest.fixture
def config() -> GatewayConfig:
    # 1 USD a million tokens = 1000 nano-USD a token: amounts in the tests can be read off token counts.
    return GatewayConfig(prices={"*": PriceConfig(prompt="1", completion="1")})


@pytest.fixture
def key(store: Store) -> ApiKey:
    return KeyRing(store).create("batch", budget_nusd=10**9).key


@pytest.fixture
def house(store: Store, resolver: FixedResolver, config: GatewayConfig) -> Any:
    made = House(store, resolver, config, Forgetful())
    yield made
    made.desk.stop()
