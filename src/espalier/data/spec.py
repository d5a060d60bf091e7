"""`DataSpec`: what a person writes to say which files become which dataset. Knows types and defaults; does nothing.

name: support
source: {path: tickets}
steps:                                # as they run; leave out for the default list
  - {step: normalise}
  - {step: redact, names: contacts.csv}
  - {step: dedup, near: 0.8}
task: {kind: extraction, labels: records.jsonl, key: 'T-[0-9]+'}
split: {test: 0.1, validation: 0.1, stratify_by: [format]}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from espalier.core.types import Spec
from espalier.data.leaks import LeakSpec
from espalier.data.readers.spec import SourceSpec
from espalier.data.split import SplitSpec
from espalier.data.steps import DEFAULT_STEPS, StepSpec, find_step
from espalier.data.tasks.specs import TaskSpec
from espalier.data.tasks.task import task_files


class DataSpec(Spec):
    """A dataset version: where from, cleaned how, made into what, divided how."""

    name: str = Field("dataset", pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", description="the dataset's name")
    description: str = Field("", description="one line for the card")
    licence: str = Field("", description="SPDX id or a sentence; empty = what SOURCE.md or LICENSE by the sources says")
    source: SourceSpec = SourceSpec()
    steps: tuple[StepSpec, ...] = Field(DEFAULT_STEPS, description="cleaning steps, in order")
    task: TaskSpec = Field(description="what an example is; its `kind` names the task")
    tokenizer: str = Field("", description="tokenizer.json: keep the token ids of each text in a column `input_ids`")
    split: SplitSpec = SplitSpec()
    leaks: LeakSpec = LeakSpec()
    workers: int = Field(0, ge=0, le=1024, description="processes (or Ray tasks) at once; 0 = one a core")
    where: Literal["local", "ray"] = Field("local", description="run the steps here, or on a Ray cluster")

    def home(self, folder: Path) -> Path:
        """Where files that steps and the task name are looked for: the source folder, or the recipe's when there are
        several sources or they lie elsewhere."""
        if len(self.source.paths) != 1 or "://" in self.source.paths[0]:
            return folder
        root = folder / self.source.paths[0]
        return root if root.is_dir() or not root.parent.is_dir() else root.parent

    @property
    def named_files(self) -> tuple[str, ...]:
        """Files the recipe names besides its sources (labels, names, word lists), relative to `home`."""
        named: list[str] = []
        for step in self.steps:
            value: Any
            for value in (getattr(step, name) for name in find_step(step).files):
                named += [value] if isinstance(value, str) else list(value)
        return tuple(name for name in (*task_files(self.task), *named) if name)
