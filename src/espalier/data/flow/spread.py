"""What runs tasks: a function from tasks to results, in order; here the one that needs nothing. Knows no task.

A task is a small picklable value, its function a module's; what is big travels through files. Results come back in the
order of the tasks, so nothing that is computed can depend on how many workers there are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

Task = TypeVar("Task")
Result = TypeVar("Result")


class Spread(Protocol):
    """Map a function over tasks; results in order, at most a few tasks ahead of the reader."""

    def __call__(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]: ...


def run_here(function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
    """The `Spread` of one process."""
    return map(function, tasks)


def prepare_worker() -> None:
    """One worker a core: the libraries in it start no threads of their own, and it ends with the process it serves."""
    import multiprocessing
    import signal
    import threading

    import pyarrow as pa

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    served = multiprocessing.parent_process()  # none where Ray has started this one
    if served is not None:
        threading.Thread(target=_end_with, args=(served,), daemon=True).start()


def _end_with(served: BaseProcess) -> None:
    """A killed process cannot tell its workers; they would wait for the next task for ever."""
    served.join()
    os._exit(1)
