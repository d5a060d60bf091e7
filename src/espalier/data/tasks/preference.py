"""Pairs of answers of which one is better, in any of the shapes of `data.formats` or from columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from espalier.core.types import Message
from espalier.data.formats.decoded import Decoded, Row, check_pair
from espalier.data.formats.format import find_format, resolve_columns
from espalier.data.tasks.chat import prepare_decode
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
    decode = prepare_decode(spec.format, spec.columns, "pairs")
    if spec.format == "preference" and any(map(is_template, spec.columns.values())):
        decode = _prepare_templates(resolve_columns(find_format(spec.format), spec.columns))
    return RowTask(decode, keep=spec.tags, group=spec.prepare_group())


def _prepare_templates(columns: Mapping[str, str]) -> Callable[[Row], Decoded]:
    parts = {part: prepare_taken(text, f"task.columns.{part}") for part, text in columns.items()}

    def decode(row: Row) -> Decoded:
        prompt, chosen, rejected = (parts[part].read(row) for part in ("prompt", "chosen", "rejected"))
        pair = Decoded(
            [Message("user", prompt)],
            text="\n\n".join(part.own(row) for part in parts.values()),
            chosen=[Message("assistant", chosen)],
            rejected=[Message("assistant", rejected)],
        )
        check_pair(pair)
        return pair

    return decode


KIND = TaskKind("preference", 1, PreferenceTask, prepare)
