"""`Warming`: what clients are pointed to when a server starts is loaded at once, beside the first requests."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from espalier.core.errors import EspalierError

if TYPE_CHECKING:
    from espalier.core.types import ModelVersion
    from espalier.services.pool import ModelPool
    from espalier.store.store import Store

_log = logging.getLogger("espalier.serve")


class Warming:
    """Loads the version behind every alias, one after the other, in a thread of its own."""

    def __init__(self, store: Store, pool: ModelPool) -> None:
        self._store = store
        self._pool = pool
        self._cold: list[ModelVersion] = []
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._cold = self._list_aliased()
        self._thread = threading.Thread(target=self._load_all, name="espalier-warming", daemon=True)
        self._thread.start()

    def count_cold(self) -> int:
        """Versions that are still to be loaded."""
        return len(self._cold)

    def stop(self) -> None:
        """Begin no further one. What is being loaded is the pool's to end."""
        self._stopping = True

    def _list_aliased(self) -> list[ModelVersion]:
        """Each version some alias points to, once."""
        from espalier.registry.aliases import list_aliases
        from espalier.registry.versions import get_version, list_models

        moves = [move for newest in list_models(self._store) for move in list_aliases(self._store, newest.name)]
        return [get_version(self._store, ref) for ref in dict.fromkeys(move.ref for move in moves)]

    def _load_all(self) -> None:
        while self._cold and not self._stopping:
            try:
                self._pool.warm(self._cold[0])
            except EspalierError as error:  # whoever asks for it is told; others are served meanwhile
                _log.warning("%s could not be loaded: %s", self._cold[0].ref, error)
            except Exception:  # noqa: BLE001 - or the server would never be ready, for one version's sake
                _log.exception("%s could not be loaded", self._cold[0].ref)
            del self._cold[0]
