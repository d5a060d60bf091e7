"""Tasks on Ray Data: the way out of one machine. Knows Ray and no task.

Workers find what tasks name by path, so the workspace (its cache above all) must be on a disk that all of them see.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from espalier.core.errors import MissingExtra
from espalier.data.flow.spread import Spread, prepare_worker

Task = TypeVar("Task")
Result = TypeVar("Result")


@contextmanager
def open_ray_spread(workers: int = 0) -> Iterator[Spread]:
    """A `Spread` over the Ray cluster this process belongs to (RAY_ADDRESS), else over one started here.

    workers: so many at once; 0 leaves it to Ray. Raises MissingExtra when Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ModuleNotFoundError:
        raise MissingExtra("`where: ray` needs Ray", hint="pip install 'espalier[ray]'") from None
    started = not ray.is_initialized()
    if started:
        here = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers or None, "include_dashboard": False}
        ray.init(log_to_driver=False, logging_level="error", **here)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield _RaySpread(workers)
    finally:
        if started:
            ray.shutdown()


class _RaySpread:
    def __init__(self, workers: int) -> None:
        self._workers = workers

    def __call__(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        import ray.data

        items = [{"number": number, "task": _Box(task)} for number, task in enumerate(tasks)]
        if not items:
            return
        compute = ray.data.TaskPoolStrategy(size=self._workers or None)
        done = ray.data.from_items(items, override_num_blocks=len(items)).map(_Apply(function), compute=compute)
        # Blocks come as they are done; a task's result waits here until those before it have come.
        early: dict[int, Any] = {}
        following = 0
        for row in done.iter_rows():
            early[row["number"]] = row["result"].value
            while following in early:
                result = early.pop(following)
                if isinstance(result, _Failure):
                    raise result.error
                yield result
                following += 1


@dataclass(frozen=True, slots=True)
class _Box:
    """Keeps Ray Data from taking a value apart: a tuple would come back as a list."""

    value: Any


@dataclass(frozen=True, slots=True)
class _Failure:
    """What a task raised, as a value: Ray would wrap it in an error of its own, and print it."""

    error: Exception


class _Apply:
    """A function over rows of Ray Data."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        prepare_worker()
        try:
            result = self._function(row["task"].value)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where the result is wanted
            result = _Failure(error)
        return {"number": row["number"], "result": _Box(result)}
