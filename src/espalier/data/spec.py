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

from typing import Annotated, Literal

from pydantic import Field

from espalier.core.types import Spec
from espalier.data.split import SplitSpec
from espalier.data.steps import DEFAULT_STEPS, StepSpec
from espalier.data.tasks.conversations import ChatTask, CompletionTask
from espalier.data.tasks.extraction import ExtractionTask
from espalier.data.tasks.rawtext import TextTask

TaskSpec = Annotated[ExtractionTask | ChatTask | CompletionTask | TextTask, Field(discriminator="kind")]


class SourceSpec(Spec):
    """Which files are read."""

    path: str = Field("", description="file or folder; relative to the recipe. Empty when a step hands one over")
    include: tuple[str, ...] = Field(("*",), description="patterns on the path below the folder; * matches slashes too")
    exclude: tuple[str, ...] = Field((), description="patterns to leave out; the labels and names files always are")
    on_error: Literal["skip", "fail"] = Field("skip", description="an unreadable file or line: report it, or stop")
    max_file_bytes: int = Field(64 << 20, ge=1, description="larger files are skipped and reported")


class DataSpec(Spec):
    """A dataset version: where from, cleaned how, made into what, divided how."""

    name: str = Field("dataset", pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", description="the dataset's name")
    description: str = Field("", description="one line for the card")
    licence: str = Field("", description="SPDX id or a sentence: under which terms the sources may be used")
    source: SourceSpec = SourceSpec()
    steps: tuple[StepSpec, ...] = Field(DEFAULT_STEPS, description="cleaning steps, in order")
    task: TaskSpec = Field(description="what an example is: extraction, chat, completion or text")
    split: SplitSpec = SplitSpec()

    @property
    def named_files(self) -> tuple[str, ...]:
        """Files the recipe names besides its sources (labels, names), relative to the source folder."""
        labels = [self.task.labels] if isinstance(self.task, ExtractionTask) else []
        return (*labels, *(step.names for step in self.steps if step.step == "redact" and step.names))
