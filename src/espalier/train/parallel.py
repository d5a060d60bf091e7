"""`World`: who computes the packs of a step, and that everybody gets all results in the packs' order.

Each pack is computed by one thread with no threads below it, and sums are taken in the packs' order. So the same bytes
come out on one core and on sixteen, in one process and in many, and a busy machine slows a step by its share instead of
stalling every product at a barrier (measured with a second program on two cores: 1,500 tokens/s with threads inside the
products, 5,000 this way). Knows no model and no optimizer; train/world.py has the worlds of several processes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Share:
    """What computing one pack gives: its part of a step's numbers, and of the gradients by parameter."""

    numbers: tuple[float, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    gradients: tuple[Tensor | None, ...] = ()


class World(Protocol):
    """The processes that train one model together; every one runs the same loop."""

    @property
    def rank(self) -> int:
        """Which of them this is; 0 writes files and tells what happens."""
        ...

    @property
    def size(self) -> int: ...

    def each(self, count: int, compute: Callable[[int], Share]) -> Iterator[Share]:
        """compute(0), compute(1) ... in order, each computed once somewhere and given to every process."""
        ...


class Alone:
    """One process; `pool` gives its cores."""

    rank, size = 0, 1

    def __init__(self, pool: ThreadPoolExecutor, workers: int) -> None:
        self._pool, self._workers = pool, workers

    def each(self, count: int, compute: Callable[[int], Share]) -> Iterator[Share]:
        """At most one result more than there are cores is held at a time, for gradients may be large."""
        waiting: deque[Future[Share]] = deque()
        for index in range(count):
            waiting.append(self._pool.submit(compute, index))
            if len(waiting) > self._workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def one_thread_each(workers: int) -> Iterator[Alone]:
    """A world of one process and `workers` threads; torch starts none of its own meanwhile.

    One thread where a GPU computes: packs at the same time would share its products and need memory for each.
    """
    workers = 1 if torch.cuda.is_available() else workers
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield Alone(pool, workers)
    finally:
        torch.set_num_threads(before)
