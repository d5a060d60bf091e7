"""Conversations people already have, in any of the shapes of `data.formats`, told apart row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
        "bedrock-claude",
        "bedrock-completion",
        "sharegpt",
        "alpaca",
        "completion",
        "question-answer",
    ] = Field("auto", description="shape of the rows (docs/formats.md)")
    columns: dict[str, str] = Field({}, description="the format's columns by other names: {messages: turns}")


def prepare(spec: ChatTask, folder: Path, rewrite: Rewrite | None) -> Task:
    """Raises InvalidInput for columns that the format does not have, or columns without a format."""
    decode = prepare_decode(spec.format, spec.columns, "conversations")
    return RowTask(decode, keep=spec.tags, group=spec.prepare_group())


def prepare_decode(name: str, columns: Mapping[str, str], holds: str) -> Callable[[Row], Decoded]:
    """What reads rows of format `name`, its columns called as `columns` says; of "auto", each row as what it is.

    Raises InvalidInput for columns the format does not have, or columns without a format.
    """
    if name == "auto":
        if columns:
            raise InvalidInput("columns of which format?", where="task.columns", hint="set task.format too")
        return lambda row: decode_any(row, holds)
    resolve_columns(find_format(name), columns)
    return lambda row: decode_row(row, name, columns)


def decode_any(row: Row, holds: str) -> Decoded:
    """What a row says, by the one format it fits; raises InvalidInput where that is none, several, or another kind."""
    found = fitting_formats(row)
    if not found:
        fields = ", ".join(row) or "none"
        raise InvalidInput(f"of no known format; its fields: {fields}", hint="set task.format and task.columns")
    if len(found) > 1:
        names = " or ".join(shape.name for shape in found)
        raise InvalidInput(f"it may be {names}", hint="say which: task.format")
    (shape,) = found
    if shape.holds != holds:
        raise InvalidInput(f"it is {shape.name}, which holds {shape.holds}", hint="another kind of task reads those")
    return decode_row(row, shape.name)


KIND = TaskKind("chat", 1, ChatTask, prepare)
