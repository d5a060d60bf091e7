"""Code to learn to write: from columns, or from Python sources (their docstrings, or holes where bodies stood)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field

from espalier.core.errors import InvalidInput
from espalier.core.types import Message
from espalier.data.formats.decoded import Decoded, Row
from espalier.data.tasks.fields import Read, prepare_required, prepare_taken
from espalier.data.tasks.functions import Function, find_functions
from espalier.data.tasks.rows import RowSpec, RowTask
from espalier.data.tasks.task import Rewrite, Task, TaskKind

_WRITE = "Write this Python function.\n\n{{ head }}"
_FILL = "Write what stands at <FILL>, and nothing else.\n\n{{ prefix }}<FILL>\n{{ suffix }}"


class CodeTask(RowSpec):
    """Rows with an instruction and code; or Python files, each documented function of which is an example."""

    kind: Literal["code"] = "code"
    style: Literal["columns", "docstring", "fill"] = Field(
        "columns",
        description="columns: an instruction and its code; docstring: signature and docstring -> the function; "
        "fill: a file with a hole -> the body that stood there",
    )
    instruction: str = Field("instruction", description="columns: column, path or template with what is asked")
    code: str = Field("", description="column, path or template with the code; empty = `output`, or the file's text")
    template: str = Field(
        "",
        description="docstring: template over head, docstring, name, uri; fill: over prefix, suffix, name, uri; "
        "empty = a plain request",
    )
    min_lines: int = Field(2, ge=1, description="bodies shorter than this teach nothing")
    max_lines: int = Field(200, ge=1, description="longer bodies are left out")
    context_lines: int = Field(80, ge=0, description="fill: so many lines are shown before and after the hole")


def prepare(spec: CodeTask, folder: Path, rewrite: Rewrite | None) -> Task:
    """Raises InvalidInput for a template that is none."""
    if spec.style == "columns":
        return RowTask(_prepare_columns(spec), keep=spec.tags, group=spec.prepare_group())
    read = prepare_required(spec.code or "text", "task.code")
    ask = prepare_required(spec.template or (_WRITE if spec.style == "docstring" else _FILL), "task.template")
    make = write_function if spec.style == "docstring" else fill_body

    def decode(row: Row) -> list[Decoded]:
        uri, text = str(row.get("uri", "")), read(row)
        if uri and not uri.endswith((".py", ".pyi")):
            raise InvalidInput("only Python is parsed", hint="leave other files out with source.include: ['*.py']")
        functions = find_functions(text, min_lines=spec.min_lines, max_lines=spec.max_lines)
        return [make(text, function, ask, uri, spec.context_lines) for function in functions]

    return RowTask(decode, keep=spec.tags, group=spec.prepare_group())


def write_function(text: str, function: Function, ask: Read, uri: str, context_lines: int = 0) -> Decoded:
    """Signature and docstring -> the whole function."""
    source = function.source(text)
    fields = {"head": function.head(text), "docstring": function.docstring, "name": function.name, "uri": uri}
    return _decoded(ask(fields), source, source, function)


def fill_body(text: str, function: Function, ask: Read, uri: str, context_lines: int) -> Decoded:
    """What stands around a function's body, at most `context_lines` either way -> the body, as it is indented there."""
    before, after = text[: function.body].splitlines(keepends=True), text[function.end :].splitlines(keepends=True)
    prefix = "".join(before[max(0, len(before) - context_lines) :])
    fields = {"prefix": prefix, "suffix": "".join(after[:context_lines]), "name": function.name, "uri": uri}
    body = text[function.body : function.end].rstrip("\r\n")
    return _decoded(ask(fields), body, function.source(text), function)


def _prepare_columns(spec: CodeTask) -> Callable[[Row], Decoded]:
    instruction = prepare_taken(spec.instruction, "task.instruction")
    code = prepare_taken(spec.code or "output", "task.code")

    def decode(row: Row) -> Decoded:
        messages = [Message("user", instruction.read(row)), Message("assistant", code.read(row))]
        return Decoded(messages, text=f"{instruction.own(row)}\n\n{code.own(row)}")

    return decode


def _decoded(asked: str, answer: str, text: str, function: Function) -> Decoded:
    messages = [Message("user", asked), Message("assistant", answer)]
    return Decoded(messages, text, tags={"function": function.name}, start=function.start, end=function.end)


KIND = TaskKind("code", 1, CodeTask, prepare)
