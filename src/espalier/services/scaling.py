"""The autoscaler's hand: what each base's engine says of its load goes in, how many replicas it is to be goes out."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from espalier.core.ports import ModelEngine, Replicated, TellMemory

if TYPE_CHECKING:
    from espalier.core.config import EngineConfig, ServeConfig
    from espalier.serve.autoscale import Autoscaler, ScaleRule

_log = logging.getLogger("espalier.serve")


class Scaling:
    """One policy for each base, kept while the server runs. Called from one thread."""

    def __init__(self, config: ServeConfig) -> None:
        self._config = config
        self._scalers: dict[str, Autoscaler] = {}

    def look(self, base: str, engine: ModelEngine, room_bytes: int, each_bytes: int = 0) -> None:
        """Have `engine` grow or shrink if its load calls for it; it does not grow beyond `room_bytes` in all.

        each_bytes: what a replica will take at least. What all of them take now does not tell, while some are starting.
        """
        if not isinstance(engine, Replicated):
            return
        there = engine.count_replicas()
        wanted = self._scaler(base).decide(time.monotonic(), engine.load(), there)
        if wanted > there and there > 0 and isinstance(engine, TellMemory):
            each_bytes = max(1, each_bytes, engine.memory_bytes() // there)
            wanted = min(wanted, max(there, room_bytes // each_bytes))
        if wanted != there:
            _log.info("%s: %d replicas, %d wanted", base, there, wanted)
            engine.scale(wanted)

    def _scaler(self, base: str) -> Autoscaler:
        from espalier.serve.autoscale import Autoscaler
        from espalier.services.engines import choose_engine

        if base not in self._scalers:
            chosen = choose_engine(base, self._config)
            self._scalers[base] = Autoscaler(rule_of(self._config, chosen))
        return self._scalers[base]


def rule_of(config: ServeConfig, engine: EngineConfig) -> ScaleRule:
    """The base's own numbers of replicas, where it has some, and the server's targets."""
    from espalier.serve.autoscale import ScaleRule

    fewest = config.min_replicas if engine.min_replicas is None else engine.min_replicas
    most = config.max_replicas if engine.max_replicas is None else engine.max_replicas
    return ScaleRule(
        min_replicas=min(fewest, most),
        max_replicas=most,
        target_queue_s=config.target_queue_s,
        target_tokens_in_flight=config.target_tokens_in_flight,
        cooldown_up_s=config.cooldown_up_s,
        cooldown_s=config.cooldown_s,
    )
