"""Chooses where tasks run: in this process, on several of this machine, or on a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from espalier.data.flow.spread import Spread, run_here

Where = Literal["local", "ray"]


@contextmanager
def open_spread(workers: int = 0, where: Where = "local") -> Iterator[Spread]:
    """A `Spread` over `workers` processes (0: one a core; 1: this process), or over a Ray cluster.

    Raises MissingExtra when Ray is asked for and not installed.
    """
    if where == "ray":
        from espalier.data.flow.raycluster import open_ray_spread

        with open_ray_spread(workers) as spread:
            yield spread
        return
    count = workers or usable_cores()
    if count == 1:
        yield run_here
        return
    from espalier.data.flow.pool import Pool

    pool = Pool(count)
    try:
        yield pool
    except BaseException:
        pool.stop()
        raise
    pool.close()


def usable_cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
