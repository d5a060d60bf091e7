"""Between the engine's thread and the one who reads an answer: never blocks the engine, never grows without end.

What is not read yet is joined to longer pieces, so that a reader who lags holds a few pieces, however many tokens they
are of. A reader who takes nothing at all for too long is given up: the engine then cancels the answer and its slot is
free. Knows no request.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from espalier.core.errors import EspalierError
from espalier.core.ports import Delta

# More unread pieces than these are joined, answer by answer.
_KEPT_APART = 64


class Mailbox:
    """`put` from any thread, `get` from the event loop it was made on."""

    def __init__(self, patience_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._loop = asyncio.get_running_loop()
        self._some = asyncio.Event()
        self._lock = threading.Lock()
        self._unread: deque[Delta | EspalierError] = deque()
        self._patience_s = patience_s
        self._clock = clock
        self._since_s = 0.0  # since when something lies unread

    def put(self, piece: Delta | EspalierError) -> bool:
        """False when nobody has read anything for too long, or ever will: whoever writes may stop."""
        with self._lock:
            waiting = bool(self._unread)
            if not waiting:
                self._since_s = self._clock()
            if not self._join(piece):
                self._unread.append(piece)
            patient = self._clock() - self._since_s <= self._patience_s
        if self._loop.is_closed():
            return False
        if not waiting:
            try:
                self._loop.call_soon_threadsafe(self._some.set)
            except RuntimeError:  # it was closed since it was looked at: no error of the engine's
                return False
        return patient

    async def get(self) -> Delta:
        """The next piece. Raises the error that was put."""
        while True:
            with self._lock:
                if self._unread:
                    piece = self._unread.popleft()
                    self._since_s = self._clock()
                    break
                self._some.clear()
            await self._some.wait()
        if isinstance(piece, EspalierError):
            raise piece
        return piece

    def __len__(self) -> int:
        return len(self._unread)

    def _join(self, piece: Delta | EspalierError) -> bool:
        """Whether `piece` was joined to an earlier one of its answer that is no last one."""
        if len(self._unread) < _KEPT_APART or isinstance(piece, EspalierError):
            return False
        for place in range(len(self._unread) - 1, -1, -1):
            last = self._unread[place]
            if isinstance(last, Delta) and last.index == piece.index:
                self._unread[place] = replace(
                    piece,
                    text=last.text + piece.text,
                    logprobs=last.logprobs + piece.logprobs,
                    tool_calls=last.tool_calls + piece.tool_calls,
                )
                return True
        return False
