"""The client's transport in process: the operations are called on the workspace's own files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from espalier.core.events import Event
from espalier.core.operations import Operation
from espalier.core.types import Run
from espalier.services.context import Context
from espalier.services.dispatch import perform
from espalier.services.queue import job_id
from espalier.services.worker import Worker

_HEAD_START_S = 10.0  # between `perform` and `work` stand a few statements; a machine may stall in them


class LocalTransport:
    """Calls on one Context, which it owns."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def perform(self, operation: Operation, request: BaseModel) -> Any:
        """Raises what the operation raises. A job is kept for this process for a while: see `work` and `detach`."""
        return perform(self.context, operation, request, head_start_s=_HEAD_START_S)

    def work(self, run: Run, on_event: Callable[[Event], None]) -> Run | None:
        """Lease the run's job and do it in this process; None when a worker has it already."""
        return Worker(self.context).work_on(run.id, on_event)

    def detach(self, run: Run) -> None:
        """Any worker of this workspace may take the run's job now."""
        self.context.store.jobs.expedite(job_id(run.id))

    def close(self) -> None:
        self.context.close()
