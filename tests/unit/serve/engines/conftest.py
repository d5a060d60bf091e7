"""A tiny base with adapters, the double's model over it (made once), and an engine in front of a double."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from espalier.core.config import EngineConfig, ServeConfig
from espalier.serve.engines.plan import EnginePlan
from espalier.serve.engines.vllm import VllmEngine
from espalier.testing.vllm.model import Model
from espalier.testing.vllm.server import VllmDouble, VllmSettings, serve_vllm

BASE = "path:served"
Connect = Callable[..., tuple[VllmEngine, VllmDouble]]


@pytest.fixture(scope="session")
def vllm_model(tiny_folder: Path) -> Model:
    return Model(tiny_folder)


@pytest.fixture
def plan(tiny_folder: Path, tmp_path: Path) -> Callable[..., EnginePlan]:
    """plan(url, serve=..., key_env=..., **options)"""

    def make(url: str = "", serve: ServeConfig | None = None, key_env: str = "", **options: Any) -> EnginePlan:
        config = EngineConfig(kind="vllm", url=url, key_env=key_env, options=options)
        return EnginePlan(BASE, f"path:{tiny_folder}", serve or ServeConfig(), config, tmp_path / "engine")

    return make


@pytest.fixture
def connect(tiny_folder: Path, vllm_model: Model, plan: Callable[..., EnginePlan]) -> Iterator[Connect]:
    """connect(settings={...}, **options): (a started engine, the double it found at a URL)."""
    with ExitStack() as stack:

        def make(settings: dict[str, Any] | None = None, **options: Any) -> tuple[VllmEngine, VllmDouble]:
            told = VllmSettings(tiny_folder, "served", **(settings or {}))
            double = stack.enter_context(serve_vllm(told, vllm_model))
            engine = VllmEngine(plan(double.url, **options))
            stack.callback(engine.stop)
            return engine.start(), double

        yield make
