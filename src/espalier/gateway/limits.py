"""Requests per minute and key: a token bucket each, in memory, refilled evenly. The clock is handed in.

A process counts for itself; two processes on one workspace allow twice the rate. Money is counted in the store, not
here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from espalier.core.errors import RateLimited


@dataclass(slots=True)
class _Bucket:
    level: float
    at_s: float


class RateLimiter:
    """A full bucket holds one minute's requests, so a burst of that size passes and then the rate holds."""

    def __init__(self, per_minute: int, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock_s = clock_s
        self._buckets: dict[str, _Bucket] = {}
        self._lock = threading.Lock()

    def take(self, key: str, per_minute: int | None = None) -> None:
        """Count one request of `key`; raises RateLimited saying how long to wait. A refused one is not counted."""
        size = per_minute or self._per_minute
        rate = size / 60
        with self._lock:
            now = self._clock_s()
            bucket = self._buckets.setdefault(key, _Bucket(size, now))
            bucket.level = min(size, bucket.level + (now - bucket.at_s) * rate)
            bucket.at_s = now
            if bucket.level >= 1:
                bucket.level -= 1
                return
            wait_s = (1 - bucket.level) / rate
        raise RateLimited(
            f"{size} requests a minute are allowed", hint=f"try again in {wait_s:.1f} s", retry_after_s=wait_s
        )
