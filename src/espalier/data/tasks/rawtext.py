"""Raw text for continued pretraining: each document is an example as it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
from pydantic import Field

from espalier.data.flow.outcome import Outcome
from espalier.data.formats.decoded import Decoded, Row
from espalier.data.tasks.fields import prepare_required
from espalier.data.tasks.rows import RowSpec, RowTask, to_examples
from espalier.data.tasks.task import Rewrite, Task, TaskKind


class TextTask(RowSpec):
    """Learn to continue the documents themselves."""

    kind: Literal["text"] = "text"
    text: str = Field("", description="column or template of a table's rows; empty = a document's own text")


@dataclass(slots=True)
class DocumentTask:
    """Documents as they were read."""

    needs_rows: bool = False
    label_count: int = 0

    def parse(self, batch: pa.RecordBatch) -> Outcome:
        """Nothing to do: the text is there."""
        return Outcome()

    def make_examples(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The documents' texts, unlabelled."""
        return to_examples(batch, raw=True)


class TextRowTask(RowTask):
    """The texts of a table's rows."""

    def make_examples(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The texts, unlabelled."""
        return to_examples(batch, raw=True)


def prepare(spec: TextTask, folder: Path, rewrite: Rewrite | None) -> Task:
    """Raises InvalidInput for a template that is none."""
    if not (spec.text or spec.tags or spec.group):
        return DocumentTask()
    read = prepare_required(spec.text or "text", "task.text")

    def decode(row: Row) -> Decoded:
        return Decoded(text=read(row))

    return TextRowTask(decode, keep=spec.tags, group=spec.prepare_group())


KIND = TaskKind("text", 1, TextTask, prepare)
