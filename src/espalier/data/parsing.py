"""The recipe's task as the first step of its flow: rows become texts and conversations before anything cleans them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from espalier.core.ids import digest_of
from espalier.core.types import Spec
from espalier.data.flow.chain import Planned, prepare
from espalier.data.flow.outcome import Outcome
from espalier.data.flow.plan import digest_code, hash_tree
from espalier.data.flow.step import CleanStep
from espalier.data.tasks.specs import TaskSpec
from espalier.data.tasks.task import Task, prepare_task, task_files, task_id

Rewrite = Callable[[pa.LargeStringArray], pa.LargeStringArray]


class ParseSpec(Spec):
    """The task, and the recipe's steps that rewrite text: keys that they would change must not be shown."""

    step: Literal["task"] = "task"
    task: TaskSpec
    rewriting: tuple[tuple[str, str, str, str, str], ...] = ()  # `Planned`, field by field


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """The task planned, and what of it the build must know beforehand."""

    planned: Planned
    needs_rows: bool
    label_count: int


class ParseStep:
    """A prepared task as a transform."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.make_examples = task.make_examples
        self.label_count = task.label_count
        self.needs_rows = task.needs_rows

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Parse the rows."""
        return self._task.parse(batch)


def plan_task(task: TaskSpec, steps: Sequence[Planned], folder: Path) -> PlannedTask:
    """The task as the first step; `steps` are those that follow it. Raises NotFound or InvalidInput for its files."""
    rewriting = [planned for planned in steps if getattr(prepare(planned), "rewrite", None)]
    told = tuple((item.name, item.id, item.spec, item.folder, item.key) for item in rewriting)
    spec = ParseSpec(task=task, rewriting=told)
    key = digest_of(
        {
            "task": task_id(task),
            "spec": task.model_dump(mode="json"),
            "files": [hash_tree(folder / name) for name in task_files(task)],
            "rewriting": [item.key for item in rewriting],
            "code": digest_code(),
        }
    )
    planned = Planned("task", f"task:{task_id(task)}", spec.model_dump_json(), str(folder.absolute()), key)
    prepared: Any = prepare(planned)
    return PlannedTask(planned, prepared.needs_rows, prepared.label_count)


def _prepare(spec: ParseSpec, folder: Path) -> ParseStep:
    steps: list[Any] = [prepare(Planned(*told)) for told in spec.rewriting]

    def rewrite(texts: pa.LargeStringArray) -> pa.LargeStringArray:
        return functools.reduce(lambda so_far, step: step.rewrite(so_far), steps, texts)

    return ParseStep(prepare_task(spec.task, folder, rewrite=rewrite))


task = CleanStep("task", 1, ParseSpec, _prepare)
