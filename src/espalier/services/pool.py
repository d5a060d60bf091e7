"""`ModelPool`: this process' engines, one for each base, loaded when first asked; adapters hot-loaded by digest."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING

from espalier.core.ports import ChatRequest, Delta
from espalier.core.types import ModelVersion
from espalier.services.bases import place_base

if TYPE_CHECKING:
    from espalier.core.config import ServeConfig
    from espalier.serve.engine import Engine
    from espalier.store.store import Store


class ModelPool:
    """Implements core.ports.ChatProvider over one engine for each base, loaded when it is first asked for."""

    def __init__(self, store: Store, config: ServeConfig) -> None:
        self._store = store
        self._config = config
        self._engines: dict[str, Engine] = {}
        self._lock = threading.Lock()

    def warm(self, version: ModelVersion) -> None:
        """Load a version's base and adapter before anyone asks. Raises what loading raises."""
        self._load_adapter(self._engine(version.base), version.adapter)

    def count_prompt_tokens(self, request: ChatRequest) -> int:
        """Exact. Loads base and adapter if need be, so the answer that follows starts at once."""
        engine = self._engine(request.base)
        self._load_adapter(engine, request.adapter)
        return engine.count_prompt_tokens(request)

    def stream(self, request: ChatRequest) -> AsyncIterator[Delta]:
        """The engine's own stream; `count_prompt_tokens` came before and loaded what it needs."""
        return self._engine(request.base).stream(request)

    def stop(self) -> None:
        """Stop every engine; answers under way end as cancelled."""
        with self._lock:
            for engine in self._engines.values():
                engine.stop()
            self._engines.clear()

    def _engine(self, base: str) -> Engine:
        with self._lock:
            if base not in self._engines:
                from espalier.nn.base import load_base
                from espalier.serve.engine import Engine

                loaded = load_base(place_base(self._store, base), threads=self._config.threads, fetch=False)
                loaded = replace(loaded, spec=base)
                self._engines[base] = Engine(loaded, self._config).start()
            return self._engines[base]

    def _load_adapter(self, engine: Engine, digest: str) -> None:
        if digest and digest not in engine.list_adapters():
            with self._lock:
                engine.load_adapter(digest, self._store.artifacts.materialise(digest))
