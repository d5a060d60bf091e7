"""The strict fake keeps the same promises as a real provider; the engine's own run of the suite is in its tests."""

from __future__ import annotations

import pytest

from espalier.testing.contracts.provider import ProviderContract
from espalier.testing.provider import StrictProvider


class TestStrictProvider(ProviderContract):
    @pytest.fixture
    def provider(self) -> StrictProvider:
        return StrictProvider()

    @pytest.fixture
    def base(self) -> str:
        return "builtin:seedling"
