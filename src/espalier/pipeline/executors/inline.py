"""A step in this very process: for a debugger, and for steps too small to be worth a process of their own.

Nothing isolates it and nothing stops it. Code that was imported stays as it was; the working folder of the whole
process is changed while a step runs.
"""

from __future__ import annotations

import contextlib
import time

from espalier.core.events import Emit
from espalier.pipeline.executors.port import Outcome, Stop, Task
from espalier.pipeline.executors.staging import Report, stage, take_in
from espalier.pipeline.work import run_step
from espalier.store.store import Store


class InlineExecutor:
    """Executes tasks by calling them; what they print goes where this process prints."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def execute(self, task: Task, emit: Emit, stop: Stop) -> Outcome:
        """Run the task; `stop` is not asked."""
        report = Report(task, emit)
        with stage(self._store, task) as request:
            began_s = time.process_time()
            with contextlib.chdir(task.folder):
                report.outcome.error = run_step(request, report.take)
            report.outcome.cpu_s = round(time.process_time() - began_s, 3)
            return take_in(self._store, task, request, report)
