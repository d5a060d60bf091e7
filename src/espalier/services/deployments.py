"""Deployments: which models this process may answer with, and the engines behind them.

`RegistryResolver` turns a name into an approved version; `ModelPool` loads its base and adapter on first use, by
digest, and answers. One frozen base serves every adapter trained on it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from espalier.core.errors import Conflict, NotFound, did_you_mean
from espalier.core.operations import operation
from espalier.core.ports import ChatRequest, Delta
from espalier.core.refs import Ref
from espalier.core.types import ModelVersion, Spec
from espalier.gateway.route import Target
from espalier.services.bases import place_base
from espalier.wire.openai.listing import Listing

if TYPE_CHECKING:
    from espalier.core.config import ServeConfig
    from espalier.serve.engine import Engine
    from espalier.services.context import Context
    from espalier.store.store import Store


class ListDeployments(Spec):
    """Whether to list every approved version too."""

    versions: bool = Field(False, description="also name each approved version, not only aliases and bases")


class Deployment(Spec):
    """A name clients may ask for, and what answers."""

    model: str
    resolved: str
    base: str
    adapter: str


@operation("deployments.list", "GET /v1/deployments")
def list_all(context: Context, request: ListDeployments) -> list[Deployment]:
    """List what clients may ask for: aliases of approved versions, and bases."""
    resolver = RegistryResolver(context.store, context.config.config.serve)
    found = []
    for listing in resolver.list_models(versions=request.versions):
        target = _target_of(resolver, listing.id)
        found.append(Deployment(model=listing.id, resolved=target.model, base=target.base, adapter=target.adapter))
    return found


def _target_of(resolver: RegistryResolver, name: str) -> Target:
    if ":" in name:
        return resolver.find_base(name)
    return resolver.find_version(Ref.parse(name, kind="model"))


class RegistryResolver:
    """Implements gateway.route.Resolver: only approved versions may serve, and bases that ship or are registered."""

    def __init__(self, store: Store, config: ServeConfig) -> None:
        self._store = store
        self._config = config

    def find_version(self, ref: Ref) -> Target:
        """Raises NotFound, and Conflict for a version that is not approved."""
        from espalier.registry.versions import get_version

        version = get_version(self._store, str(ref))
        if version.status != "Approved":
            raise Conflict(
                f"{version.ref} is {version.status}, only approved versions answer",
                hint=f"espalier models approve {version.ref}",
            )
        return self._target(version.ref, version.base, version.adapter)

    def find_base(self, name: str) -> Target:
        """Raises NotFound for a base that neither ships with Espalier nor stands under a registered model."""
        known = self._bases()
        if name not in known:
            raise NotFound(f"base {name} is not served here", hint=did_you_mean(name, known))
        return self._target(name, name, "")

    def list_models(self, *, versions: bool = False) -> Sequence[Listing]:
        """Bases first, then `name@alias` for every alias of an approved version, `name@vN` when `versions`."""
        from espalier.registry.aliases import list_aliases
        from espalier.registry.versions import list_models, list_versions

        listings = [Listing(base) for base in self._bases()]
        for newest in list_models(self._store):
            listings += [
                Listing(f"{newest.name}@{move.alias}", move.at_ms) for move in list_aliases(self._store, newest.name)
            ]
            if versions:
                approved = (v for v in list_versions(self._store, newest.name) if v.status == "Approved")
                listings += [Listing(f"{v.name}@v{v.version}", v.created_ms) for v in approved]
        return listings

    def _bases(self) -> list[str]:
        from espalier.nn.locate import list_builtins
        from espalier.registry.versions import list_models

        builtins = [f"builtin:{name}" for name in list_builtins()]
        named = {version.base for version in list_models(self._store) if not version.made_base}
        registered = sorted(named - set(builtins))  # one that was made here is asked for by its model's name
        return [*builtins, *registered]

    def _target(self, model: str, base: str, adapter: str) -> Target:
        context_tokens = _read_context_tokens(place_base(self._store, base))
        return Target(model, base, adapter, min(self._config.max_context_tokens, context_tokens))


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


def _read_context_tokens(base: str) -> int:
    from espalier.nn.locate import locate_base

    config = json.loads((locate_base(base, fetch=False) / "config.json").read_bytes())
    return int(config.get("max_position_embeddings", 2048))
