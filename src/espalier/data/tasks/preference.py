"""Pairs of answers of which one is better, in any of the shapes of `data.formats` or from columns."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from espalier.core.errors import InvalidInput
from espalier.core.types import Message
from espalier.data.formats.decoded import Decoded, Row, check_pair
from espalier.data.formats.format import decode_row, find_format, resolve_columns
from espalier.data.tasks.chat import decode_any
from espalier.data.tasks.fields import is_template, prepare_taken
from espalier.data.tasks.rows import RowSpec, RowTask
from espalier.data.tasks.task import Rewrite, Task, TaskKind


class PreferenceTask(RowSpec):
    """Rows that hold a question, a better and a worse answer; KTO's rows hold one answer and a verdict."""

    kind: Literal["preference"] = "preference"
    format: Literal["auto", "preference", "openai-preference", "kto"] = Field(
        "auto", description="shape of the rows (docs/formats.md)"
    )
    columns: dict[str, str] = Field(
        {}, description="the format's columns by other names, or templates: {prompt: '{{ question }}', chosen: best}"
    )


def prepare(spec: PreferenceTask, folder: Path, rewrite: Rewrite | None) -> Task:
    """Raises InvalidInput for columns the format does not have, or a template that is none."""
    name = spec.format
    if name == "auto":
        if spec.columns:
            raise InvalidInput("columns of which format?", where="task.columns", hint="set task.format too")

        def decode(row: Row) -> Decoded:
            return decode_any(row, ("pairs",))
    else:
        columns = resolve_columns(find_format(name), spec.columns)
        if name == "preference" and any(map(is_template, columns.values())):
            parts = {part: prepare_taken(text, f"task.columns.{part}") for part, text in columns.items()}

            def decode(row: Row) -> Decoded:
                prompt, chosen, rejected = (parts[part].read(row) for part in ("prompt", "chosen", "rejected"))
                pair = Decoded([Message("user", prompt)], "\n\n".join(parts[part].own(row) for part in parts))
                pair.chosen, pair.rejected = [Message("assistant", chosen)], [Message("assistant", rejected)]
                check_pair(pair)
                return pair
        else:

            def decode(row: Row) -> Decoded:
                return decode_row(row, name, spec.columns)

    return RowTask(decode, keep=spec.tags, group=spec.prepare_group())


KIND = TaskKind("preference", 1, PreferenceTask, prepare)
