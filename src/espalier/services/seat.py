"""A `Seat`: one base that is loaded, whatever engine answers for it, with the adapters on it.

Opens, warms, measures and closes; which bases have a seat is the pool's. Knows no request but the one that warms.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from espalier.core.ports import HoldsCapacity, ModelEngine, ReservedShare, TellMemory

if TYPE_CHECKING:
    from espalier.core.config import ServeConfig

Materialise = Callable[[str], Path]  # an artifact's digest -> its folder; raises NotFound


class Seat:
    """A started engine. Its adapters are loaded when they are asked for, and go when others need the room."""

    def __init__(self, base: str, engine: ModelEngine, config: ServeConfig, materialise: Materialise) -> None:
        from espalier.serve.residency import Residency

        self.base = base
        self.engine = engine
        self.copy_bytes = 0  # what one process of it was estimated to take of this machine's memory
        self._materialise = materialise
        self._closed = False
        self._held: Sequence[ReservedShare] = ()
        # Held from looking up what is reserved until `hold` has told the engine: the last word counts.
        self.telling = threading.Lock()
        self.adapters: Residency[str] = Residency(
            "adapter",
            self._load_adapter,
            self._unload_adapter,
            budget_bytes=config.adapter_memory_bytes,
            most=config.max_adapters,
            patient=True,  # an answer ends soon, and with it an adapter's use
        )

    @property
    def broken(self) -> bool:
        """Whether the engine has ended by itself, so that only a new one helps."""
        return not getattr(self.engine, "answering", True)

    def measure_bytes(self) -> int:
        """What it takes of this machine's memory, adapters included."""
        return self.engine.memory_bytes() if isinstance(self.engine, TellMemory) else 0

    def warm(self) -> None:
        """One short answer, so that kernels are built and pages touched before somebody waits for them.

        Only where the model is in this machine's memory: elsewhere an answer may cost money.
        """
        if isinstance(self.engine, TellMemory):
            from espalier.serve.warming import warm

            asyncio.run(warm(self.engine, self.base))

    def hold(self, shares: Sequence[ReservedShare]) -> None:
        """Have the engine hold exactly these, if it does not. Raises what `HoldsCapacity.hold` raises."""
        if isinstance(self.engine, HoldsCapacity) and list(shares) != list(self._held):
            self.engine.hold(shares)
            self._held = tuple(shares)

    def close(self) -> None:
        """Stop the engine; answers under way end as cancelled."""
        self._closed = True
        self.engine.stop()  # first: an adapter in use goes only when its answers have ended
        self.adapters.close()

    def _unload_adapter(self, digest: str, _: str) -> None:
        if not self._closed:  # a stopped engine has let go of all
            self.engine.unload_adapter(digest)

    def _load_adapter(self, digest: str) -> tuple[str, int]:
        from espalier.serve.footprint import folder_bytes

        folder = self._materialise(digest)
        self.engine.load_adapter(digest, folder)
        return digest, folder_bytes(folder)


def give_memory_back() -> None:
    """Collect what a closed engine left in cycles, and hand freed pages to the system, as glibc does not by itself."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
