"""A store in a temporary workspace, a table of models, and a strict provider."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from espalier.core.config import GatewayConfig, PriceConfig
from espalier.core.types import SamplingSpec
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
