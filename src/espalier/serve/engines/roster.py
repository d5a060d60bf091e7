"""`Roster`: which adapters of a server elsewhere may be asked, and which requests are under way on each.

A server that is told to let an adapter go does not wait for its requests, so the waiting is done here. Knows no server.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from espalier.core.errors import Conflict, NotFound
from espalier.core.ports import EngineLoad


@dataclass(slots=True, eq=False)
class Visit:
    """One request under way."""

    adapter: str
    tokens: int  # of its prompt and answer, at their longest
    since_s: float = field(default_factory=time.monotonic)
    begun: bool = False  # its first piece has come


class Roster:
    """Safe from any thread. `names` maps a digest to what the server calls it."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._closing: set[str] = set()
        self._visits: set[Visit] = set()
        self._change = threading.Condition()

    def digests(self) -> list[str]:
        """Those that may be asked."""
        with self._change:
            return [digest for digest in self._names if digest not in self._closing]

    def add(self, digest: str, name: str) -> None:
        with self._change:
            self._names[digest] = name

    def clear(self) -> None:
        """Forget all: the server has gone, and its adapters with it."""
        with self._change:
            self._names.clear()

    @contextmanager
    def visit(self, digest: str, tokens: int) -> Iterator[tuple[Visit, str]]:
        """Count a request in and out; gives what the server calls its adapter, empty for the base.

        Raises NotFound (not loaded), Conflict (going).
        """
        visit = Visit(digest, tokens)
        with self._change:
            self._check(digest)
            self._visits.add(visit)
            name = self._names[digest] if digest else ""
        try:
            yield visit, name
        finally:
            with self._change:
                self._visits.discard(visit)
                self._change.notify_all()

    def drain(self, digest: str, let_go: Callable[[str], None]) -> None:
        """Take no new request for it, wait for those under way, then `let_go(name)`. Raises NotFound, Conflict.

        Where letting go fails, it may be asked again. Where the server goes meanwhile, the adapter went with it.
        """
        with self._change:
            self._check(digest)
            self._closing.add(digest)
        try:
            with self._change:
                self._change.wait_for(lambda: not any(visit.adapter == digest for visit in self._visits))
                name = self._names.get(digest)
            if name is not None:
                let_go(name)
                with self._change:
                    self._names.pop(digest, None)
        finally:
            with self._change:
                self._closing.discard(digest)

    def load(self, *, running: int | None = None, waiting: int | None = None, slots: int = 0) -> EngineLoad:
        """How busy it is: as the server says where it does, else by the requests we sent it ourselves."""
        with self._change:
            silent = [visit.since_s for visit in self._visits if not visit.begun]
            begun = len(self._visits) - len(silent)
            return EngineLoad(
                running=begun if running is None else running,
                waiting=len(silent) if waiting is None else waiting,
                tokens_in_flight=sum(visit.tokens for visit in self._visits),
                queue_s=time.monotonic() - min(silent) if silent else 0.0,
                slots=slots,
            )

    def _check(self, digest: str) -> None:
        if digest in self._closing:
            raise Conflict(f"adapter {digest[:12]} is being unloaded", hint="ask the version that replaces it")
        if digest and digest not in self._names:
            raise NotFound(f"adapter {digest[:12]} is not loaded", hint="load it before asking it")
