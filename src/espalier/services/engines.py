"""Which engine answers for a base, as the settings say: in this process, in vLLM, in a server elsewhere, a plug-in."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, cast

from espalier.core.config import EngineConfig
from espalier.core.errors import InvalidInput, did_you_mean
from espalier.core.plugins import find_plugins, load_plugin

if TYPE_CHECKING:
    from espalier.core.config import ServeConfig
    from espalier.core.ports import ModelEngine
    from espalier.serve.engine import Engine
    from espalier.serve.engines.plan import EnginePlan

GROUP = "espalier.engines"


def open_engine(base: str, *, place: str, serve: ServeConfig, folder: Path) -> ModelEngine:
    """The engine for `base`, not started.

    place: the base under a name that nn can load; folder: where engines may keep logs and copies, each in its own.
    Raises InvalidInput for a kind there is none of, and what the engine raises for its options.
    """
    from espalier.serve.engines.plan import EnginePlan

    pattern, engine = _match(base, serve)
    own = folder / sha256(base.encode()).hexdigest()[:16]
    plan = EnginePlan(base, place, serve, engine, own, f"serve.engines.{pattern}" if pattern else "serve.engines")
    return cast("ModelEngine", load_plugin(GROUP, engine.kind)(plan))


def choose_engine(base: str, serve: ServeConfig) -> EngineConfig:
    """The settings for `base`: its own row before a pattern, a longer pattern before a shorter one.

    Where none matches: replicas where serve.max_replicas allows more than one, else embedded.

    Raises InvalidInput for a pattern with a * within, or a kind nobody makes.
    """
    return _match(base, serve)[1]


def runs_elsewhere(base: str, serve: ServeConfig) -> bool:
    """Whether a server of its own has the base, template and all, so that nothing of it need be on this machine."""
    return choose_engine(base, serve).kind == "openai"


def open_embedded(plan: EnginePlan) -> Engine:
    """The engine in this process."""
    from dataclasses import replace

    from espalier.nn.base import load_base
    from espalier.serve.engine import Engine

    loaded = load_base(plan.place, threads=plan.serve.threads, fetch=False)
    return Engine(replace(loaded, spec=plan.base), plan.serve)


def _match(base: str, serve: ServeConfig) -> tuple[str, EngineConfig]:
    for pattern, engine in serve.engines.items():
        if "*" in pattern[:-1]:
            raise InvalidInput(f"a * may only end a base's name, not {pattern!r}", where="serve.engines")
        known = find_plugins(GROUP)
        if engine.kind not in known:
            raise InvalidInput(
                f"there is no engine of kind {engine.kind!r}",
                where=f"serve.engines.{pattern}.kind",
                hint=did_you_mean(engine.kind, known),
            )
    matching = [p for p in serve.engines if p == base or (p.endswith("*") and base.startswith(p[:-1]))]
    best = max(matching, key=lambda pattern: (pattern == base, len(pattern)), default="")
    if best:
        return best, serve.engines[best]
    return "", EngineConfig(kind="replicas" if serve.max_replicas > 1 else "embedded")
