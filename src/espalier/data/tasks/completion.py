"""A question and its answer from the columns of a row, or from templates over them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from espalier.core.types import Message
from espalier.data.formats.decoded import Decoded, Row
from espalier.data.tasks.fields import is_template, prepare_field, prepare_taken
from espalier.data.tasks.rows import RowSpec, RowTask
from espalier.data.tasks.task import Rewrite, Task, TaskKind


class CompletionTask(RowSpec):
    """Rows that hold what is asked and what is answered."""

    kind: Literal["completion"] = "completion"
    prompt: str = Field("prompt", description="column, path (instances.0.input) or template with the question")
    completion: str = Field("completion", description="column, path or template with the answer")
    system: str = Field("system", description="column or template with a system message; a row without it has none")


def prepare(spec: CompletionTask, folder: Path, rewrite: Rewrite | None) -> Task:
    """Raises InvalidInput for a template that is none."""
    prompt = prepare_taken(spec.prompt, "task.prompt")
    completion = prepare_taken(spec.completion, "task.completion")
    system = prepare_field(spec.system, "task.system") if spec.system else None

    def decode(row: Row) -> Decoded:
        messages = [Message("user", prompt.read(row)), Message("assistant", completion.read(row))]
        if system and (is_template(spec.system) or row.get(spec.system) is not None) and (text := system(row)).strip():
            messages.insert(0, Message("system", text))
        return Decoded(messages, text=f"{prompt.own(row)}\n\n{completion.own(row)}")

    return RowTask(decode, keep=spec.tags, group=spec.prepare_group())


KIND = TaskKind("completion", 1, CompletionTask, prepare)
