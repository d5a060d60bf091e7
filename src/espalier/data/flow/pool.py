"""Tasks on several processes of this machine."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

from espalier.core.errors import EspalierError
from espalier.data.flow.spread import prepare_worker

Task = TypeVar("Task")
Result = TypeVar("Result")
# So many tasks a worker are handed out ahead: enough that none waits, few enough that results do not pile up.
_AHEAD = 2
_TICK_S = 0.5


class Pool:
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

    def stop(self) -> None:
        """End the workers in the midst of what they do: a task may take minutes, and its result is not wanted."""
        # The executor has no public way to do this before Python 3.14 (`terminate_workers`).
        for worker in list((self._executor._processes or {}).values()) if self._executor else ():
            worker.terminate()
        self.close()

    def close(self) -> None:
        """Wait for what runs, and let the workers go."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
