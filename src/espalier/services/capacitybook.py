"""`CapacityBook`: what is reserved now, as requests find it and engines hold it.

It is read from the store again at most every half second, so a reservation made in any process is held by every serving
process within a second. An alias that moves takes its reservation along.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from espalier.core.errors import EspalierError
from espalier.core.ports import ReservedShare
from espalier.gateway.route import ReservationTable, Resolver, find_target

if TYPE_CHECKING:
    from espalier.core.types.capacity import Reservation
    from espalier.store.store import Store

_LOOK_S = 0.5
_log = logging.getLogger("espalier.capacity")
Hold = Callable[[Mapping[str, Sequence[ReservedShare]]], None]


class CapacityBook:
    """Every method may be called from any thread; `look` may wait for the store."""

    def __init__(self, store: Store, resolver: Resolver, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._resolver = resolver
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._looked_s = float("-inf")
        self._table = ReservationTable()
        self._shares: dict[str, list[ReservedShare]] = {}

    def table(self) -> ReservationTable:
        """Which requests draw on which reservation."""
        self.look()
        return self._table

    def shares(self) -> Mapping[str, Sequence[ReservedShare]]:
        """What each base's engine is to hold."""
        self.look()
        return self._shares

    def look(self) -> None:
        """Read what is reserved, where the last look was half a second ago."""
        with self._lock:
            if self._clock_s() - self._looked_s < _LOOK_S:
                return
            self._looked_s = self._clock_s()
        from espalier.registry.reservations import list_reservations

        self._take_over(list_reservations(self._store))

    def _take_over(self, reservations: Sequence[Reservation]) -> None:
        by_target: dict[str, str] = {}
        models: dict[str, str] = {}
        shares: dict[str, list[ReservedShare]] = defaultdict(list)
        for each in reservations:
            models[each.name] = each.model
            try:
                target = find_target(self._resolver, each.model)
            except EspalierError as error:
                _log.warning("reservation %s holds nothing: %s", each.name, error.message)
                continue
            shares[target.base].append(ReservedShare(each.name, each.slots, each.tokens_per_minute))
            by_target.setdefault(target.deployment or target.model, each.name)
        self._table, self._shares = ReservationTable(by_target, models), dict(shares)


class CapacityKeeper:
    """Has the engines of this process hold what the book says, in a thread of its own."""

    def __init__(self, book: CapacityBook, hold: Hold) -> None:
        self._book = book
        self._hold = hold
        self._held: Mapping[str, Sequence[ReservedShare]] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Keep until `stop`."""
        self._thread = threading.Thread(target=self._run, name="capacity", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """What is held stays held."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def look(self) -> None:
        """Compare book and engines once."""
        shares = self._book.shares()
        if shares != self._held:
            self._hold(shares)
            self._held = shares  # only now: what could not be held is tried again
            _log.info("holding capacity: %s", {base: [share.name for share in each] for base, each in shares.items()})

    def _run(self) -> None:
        while not self._stopping.wait(_LOOK_S):
            try:
                self.look()
            except EspalierError as error:
                _log.error("capacity cannot be held: %s", error)
            except Exception:  # noqa: BLE001 - or nothing would be held any more, and nobody would know
                _log.exception("capacity cannot be held")
