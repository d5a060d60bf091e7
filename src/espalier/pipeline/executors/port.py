"""What every executor is: it runs one task somewhere and says how it went. A cluster's stands behind the same type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from espalier.core.errors import EspalierError
from espalier.core.events import Emit
from espalier.core.types import Artifact

Stop = Callable[[], bool]  # asked now and then: True when the work should be given up


def never_stop() -> bool:
    """A `Stop` for work that nobody cancels."""
    return False


@dataclass(frozen=True, slots=True)
class Task:
    """One execution of one step, complete: nothing else is needed to do it, here or elsewhere."""

    run: str
    key: str
    step: str  # name, to be found by `pipeline.catalog`
    spec: dict[str, Any]  # JSON
    seed: int
    inputs: Mapping[str, Artifact]  # by port
    outputs: Mapping[str, str]  # port -> kind; a trailing `?` makes it optional
    folder: Path  # the working folder; relative paths of the spec start here
    workspace: Path  # root of the workspace, for side effects
    actor: str
    pass_fds: tuple[int, ...] = ()  # locks the work holds as long as it lives


@dataclass(slots=True)
class Outcome:
    """How it went. `outputs` are staged (bytes stored, not yet recorded); with an `error` there are none."""

    outputs: dict[str, Artifact] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    cpu_s: float = 0.0
    error: EspalierError | None = None


class Executor(Protocol):
    """Runs tasks. A step's failure is an Outcome; Interrupted is raised when `stop` said so, the work dead by then."""

    def execute(self, task: Task, emit: Emit, stop: Stop) -> Outcome: ...
