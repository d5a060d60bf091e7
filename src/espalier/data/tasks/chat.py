"""Conversations people already have, in any of the shapes of `data.formats`, told apart row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from espalier.core.errors import InvalidInput
from espalier.data.formats.decoded import Decoded, Row
from espalier.data.formats.format import decode_row, find_format, fitting_formats, resolve_columns
from espalier.data.tasks.rows import RowSpec, RowTask
from espalier.data.tasks.task import Rewrite, Task, TaskKind


class ChatTask(RowSpec):
    """Rows that hold a conversation; `auto` takes each row for what it looks like."""

    kind: Literal["chat"] = "chat"
    format: Literal[
        "auto",
        "openai-chat",
        "bedrock-conversation",
        "bedrock-completion",
        "sharegpt",
        "alpaca",
        "completion",
        "question-answer",
    ] = Field("auto", description="shape of the rows (docs/formats.md)")
    columns: dict[str, str] = Field({}, description="the format's columns by other names: {messages: turns}")


def prepare(spec: ChatTask, folder: Path, rewrite: Rewrite | None) -> Task:
    """Raises InvalidInput for columns that the format does not have, or columns without a format."""
    if spec.format == "auto":
        if spec.columns:
            raise InvalidInput("columns of which format?", where="task.columns", hint="set task.format too")

        def decode(row: Row) -> Decoded:
            return decode_any(row)
    else:
        name = spec.format
        resolve_columns(find_format(name), spec.columns)

        def decode(row: Row) -> Decoded:
            return decode_row(row, name, spec.columns)

    return RowTask(decode, keep=spec.tags, group=spec.prepare_group())


def decode_any(row: Row, holds: tuple[str, ...] = ("conversations",)) -> Decoded:
    """What a row says, by the one format it fits; raises InvalidInput where that is none, several, or another kind."""
    found = fitting_formats(row)
    if not found:
        fields = ", ".join(row) or "none"
        raise InvalidInput(f"of no known format; its fields: {fields}", hint="set task.format and task.columns")
    if len(found) > 1:
        names = " or ".join(shape.name for shape in found)
        raise InvalidInput(f"it may be {names}", hint="say which: task.format")
    (shape,) = found
    if shape.holds not in holds:
        raise InvalidInput(f"it is {shape.name}, which holds {shape.holds}", hint="another kind of task reads those")
    return decode_row(row, shape.name)


KIND = TaskKind("chat", 1, ChatTask, prepare)
