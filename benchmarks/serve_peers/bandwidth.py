"""How fast the threads read memory: the roofline of decoding one stream, which reads every weight once a token."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

BYTES = 1 << 29


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """The best of several reads of an array many times larger than any cache, in several ways of reading it."""
    torch.set_num_threads(job["threads"])
    numbers = torch.ones(BYTES // 4)
    rows = numbers.view(-1, 1024)
    x = torch.ones(1024)
    ways = {"sum": lambda: numbers.sum(), "max": lambda: numbers.max(), "product": lambda: rows @ x}
    best_s = {name: min(_clock(read) for _ in range(6)) / job["threads"] for name, read in ways.items()}
    return {"bytes_per_s": BYTES / min(best_s.values()), "ways": {name: BYTES / took for name, took in best_s.items()}}


def _clock(read: Callable[[], object]) -> float:
    """CPU seconds of all threads: others on the same core do not count."""
    start = time.process_time()
    read()
    return time.process_time() - start
