"""The real engine, over a tiny random base, keeps the promises of a `ChatProvider`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from espalier.core.config import ServeConfig
from espalier.nn.base import load_base
from espalier.serve.engine import Engine
from espalier.testing.contracts.provider import ProviderContract
from espalier.testing.tiny import make_tiny_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"path:{make_tiny_base(tmp_path_factory.mktemp('tiny'))}"


@pytest.fixture(scope="module")
def provider(base: str) -> Iterator[Engine]:
    engine = Engine(load_base(base), ServeConfig(max_batch=4, max_context_tokens=128)).start()
    yield engine
    engine.stop()


class TestEngine(ProviderContract):
    pass
