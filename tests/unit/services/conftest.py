"""A pool over a workspace of its own, and tiny bases for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from espalier.core.config import ServeConfig
from espalier.services import pool as pool_module
from espalier.services.pool import ModelPool
from espalier.store.store import Store, open_store
from espalier.store.workspace import init_workspace
from espalier.testing.tiny import make_tiny_base


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(init_workspace(tmp_path / "workspace"))
    yield opened
    opened.close()


@pytest.fixture
def make_pool(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ModelPool]]:
    monkeypatch.setattr(pool_module, "_LOOK_S", 0.05)  # it looks after what is loaded that often
    pools: list[ModelPool] = []

    def build(open_engine: Any = None, **settings: Any) -> ModelPool:
        config = ServeConfig(**{"max_batch": 4, "max_context_tokens": 128, "threads": 1, **settings})
        pools.append(ModelPool(store, config, open_engine=open_engine))
        return pools[-1]

    yield build
    for pool in pools:
        pool.stop()


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [f"path:{make_tiny_base(tmp_path_factory.mktemp('base'), seed=seed)}" for seed in range(3)]
