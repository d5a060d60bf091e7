"""How far the reading of sources has come, told while one large source is still being read.

A worker notes it in a small file beside what it writes; whoever waits for the worker looks there. Knows no format.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from espalier.core.events import Emit, Event

EVERY_S = 0.5
_LOOK_AHEAD = 64  # sources that may be under way at once
# Set where the reading happens in the process that tells of it.
_tick: ContextVar[Callable[[], None] | None] = ContextVar("espalier_reading", default=None)


class Teller:
    """What a reader is watched by: notes its progress in `path`, now and then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = time.monotonic()

    def __call__(self, done_bytes: int, all_bytes: int, rows: int) -> None:
        """Bytes as they lie on disk; rows so far."""
        now = time.monotonic()
        if now - self._last < EVERY_S:
            return
        self._last = now
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(f"{done_bytes} {rows}")
        if tick := _tick.get():
            tick()

    def close(self) -> None:
        """Take the note away."""
        self._path.unlink(missing_ok=True)


class Gauge:
    """Emits `data.read` with files, bytes, rows and an estimate of the time left."""

    def __init__(self, emit: Emit, notes: Sequence[Path], sizes_bytes: Sequence[int]) -> None:
        """`notes` and `sizes_bytes`: for each source, where its progress is noted, and its size."""
        self._emit = emit
        self._notes, self._sizes = notes, sizes_bytes
        self._began = self._last = time.monotonic()
        self._files = self._rows = self._bytes = 0

    def finish(self, rows: int) -> None:
        """The next source in order is read, with so many rows."""
        self._bytes += self._sizes[self._files]
        self._files += 1
        self._rows += rows
        if self._files == len(self._notes) or time.monotonic() - self._last >= EVERY_S:
            self._say(self._bytes, self._rows)

    def tick(self) -> None:
        """Look how far the sources under way are."""
        done_bytes, rows = self._bytes, self._rows
        for note in self._notes[self._files : self._files + _LOOK_AHEAD]:
            with suppress(OSError, ValueError):
                read_bytes, read_rows = map(int, note.read_text().split())
                done_bytes, rows = done_bytes + read_bytes, rows + read_rows
        self._say(done_bytes, rows)

    def _say(self, done_bytes: int, rows: int) -> None:
        self._last = now = time.monotonic()
        all_bytes = sum(self._sizes)
        left_s = (now - self._began) / done_bytes * (all_bytes - done_bytes) if done_bytes else 0.0
        told = {"files": self._files, "of_files": len(self._notes), "documents": rows}
        self._emit(Event("data.read", {**told, "bytes": done_bytes, "of_bytes": all_bytes, "eta_s": round(left_s, 1)}))


@contextmanager
def ticking(spread: Any, tick: Callable[[], None]) -> Iterator[None]:
    """While it lasts, `tick` is called now and then: by a pool that waits for its workers, or by a `Teller` here."""
    _tick.set(tick)
    pool = hasattr(spread, "tick")
    if pool:
        spread.tick = tick
    try:
        yield
    finally:
        _tick.set(None)
        if pool:
            spread.tick = None
