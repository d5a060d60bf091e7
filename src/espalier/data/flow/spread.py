"""Where tasks run: in this process, on several of this machine, or on a Ray cluster. Knows no task.

A task is a small picklable value, its function a module's; what is big travels through files. Results come back in the
order of the tasks, so nothing that is computed can depend on how many workers there are.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import Literal, Protocol, TypeVar

from espalier.core.errors import EspalierError

Where = Literal["local", "ray"]
Task = TypeVar("Task")
Result = TypeVar("Result")
# So many tasks a worker are handed out ahead: enough that none waits, few enough that results do not pile up.
_AHEAD = 2
_TICK_S = 0.5


class Spread(Protocol):
    """Map a function over tasks; results in order, at most a few tasks ahead of the reader."""

    def __call__(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]: ...


def run_here(function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
    """The `Spread` of one process."""
    return map(function, tasks)


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
    pool = _Pool(count)
    try:
        yield pool
    finally:
        pool.close()


def usable_cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Pool:
    """Worker processes, started at the first task: a run that finds everything done starts none."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._executor: ProcessPoolExecutor | None = None
        self.tick: Callable[[], None] | None = None  # called now and then while a result is waited for

    def __call__(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        waiting = iter(tasks)
        futures: deque[Future[Result]] = deque()
        try:
            for task in islice(waiting, self._workers * _AHEAD):
                futures.append(self._start().submit(function, task))
            while futures:
                result = self._wait(futures.popleft())
                futures.extend(self._start().submit(function, task) for task in islice(waiting, 1))
                yield result
        except BrokenProcessPool:
            raise EspalierError(
                "a worker process died; the likeliest reason is memory",
                hint="run the same command again (what is done is kept), with fewer workers",
            ) from None
        finally:
            for future in futures:
                future.cancel()

    def _wait(self, future: Future[Result]) -> Result:
        while self.tick and not wait([future], _TICK_S).done:
            self.tick()
        return future.result()

    def _start(self) -> ProcessPoolExecutor:
        if self._executor is None:
            # Forking this process would copy its threads' locks; the fork server has none.
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(["espalier.data.flow.chain"])
            self._executor = ProcessPoolExecutor(self._workers, mp_context=context, initializer=prepare_worker)
        return self._executor

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)


def prepare_worker() -> None:
    """One worker a core: the libraries in it start no threads of their own."""
    import signal

    import pyarrow as pa

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
