"""A question, with the context it is asked about where there is one, and its answer."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from espalier.core.types import Message
from espalier.data.formats.columns import read_answer
from espalier.data.formats.decoded import Decoded, Row
from espalier.data.tasks.fields import find_value, is_template, prepare_field, prepare_required
from espalier.data.tasks.rows import RowSpec, RowTask
from espalier.data.tasks.task import Rewrite, Task, TaskKind


class QuestionTask(RowSpec):
    """Rows that hold a question and its answer."""

    kind: Literal["question_answering"] = "question_answering"
    question: str = Field("question", description="column, path or template with the question")
    answer: str = Field("answer", description="column, path or template; of SQuAD's several answers the first counts")
    context: str = Field("context", description="column or template with what it is asked about; may be absent")
    template: str = Field(
        "{% if context %}{{ context }}\n\n{% endif %}{{ question }}",
        description="template of the user's turn over `question`, `context` and the row's columns",
    )


def prepare(spec: QuestionTask, folder: Path, rewrite: Rewrite | None) -> Task:
    """Raises InvalidInput for a template that is none."""
    question = prepare_required(spec.question, "task.question")
    answer = prepare_required(spec.answer, "task.answer") if is_template(spec.answer) else None
    context = prepare_field(spec.context, "task.context")
    ask = prepare_required(spec.template, "task.template")

    def decode(row: Row) -> Decoded:
        asked = question(row)
        told = context(row) if is_template(spec.context) or find_value(row, spec.context) is not None else ""
        said = answer(row) if answer else read_answer({spec.answer: find_value(row, spec.answer)}, spec.answer)
        user = ask({**row, "question": asked, "context": told})
        return Decoded(
            [Message("user", user), Message("assistant", said)], text="\n\n".join(filter(None, (told, asked, said)))
        )

    return RowTask(decode, keep=spec.tags, group=spec.prepare_group())


KIND = TaskKind("question_answering", 1, QuestionTask, prepare)
