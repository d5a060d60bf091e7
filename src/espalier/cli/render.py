"""Answers on a terminal: a list is a table, a single thing is its fields, things within it stand indented under their
name; under --json all of it is JSON.

A response that defines `to_text()` says itself how it reads. Units in field names decide how a value is shown. Knows
types, not operations.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import click
from pydantic import BaseModel, TypeAdapter

from espalier.cli.options import Options
from espalier.cli.progress import format_s
from espalier.core.money import format_usd
from espalier.core.operations import Operation
from espalier.core.types import Run

_DIGEST_CHARS = 12
_STAMPS = ("created_ms", "started_ms", "ended_ms", "at_ms", "updated_ms", "expires_ms")
_UNITS = ("_ms", "_s", "_bytes", "_nusd")  # told by the value, so that a table's head need not
_COLUMNS = 8
_CELL_CHARS = 44
_INDENT = "  "


def show_answer(answer: Any, operation: Operation, options: Options) -> None:
    """Print what an operation returned."""
    if options.as_json:
        adapter = TypeAdapter(operation.response)
        click.echo(json.dumps(adapter.dump_python(answer, mode="json"), indent=2, ensure_ascii=False))
    elif answer is None:
        return
    elif hasattr(answer, "to_text"):
        click.echo(answer.to_text())
    elif isinstance(answer, list | tuple):
        _print_rows(answer)
    elif isinstance(answer, BaseModel):
        click.echo("\n".join(_field_lines(answer)))
    else:
        click.echo(answer if isinstance(answer, str) else json.dumps(answer, indent=2, ensure_ascii=False, default=str))


def show_run(run: Run, options: Options) -> None:
    """Print how a run ended."""
    if options.as_json:
        click.echo(run.model_dump_json(indent=2))
        return
    took = f" in {format_s((run.ended_ms - run.started_ms) / 1000)}" if run.ended_ms and run.started_ms else ""
    click.echo(f"{run.id} {run.status}{took}")
    for name, digest in run.outputs.items():
        click.echo(f"  {name:<12} {digest[:_DIGEST_CHARS]}")
    for name, value in run.metrics.items():
        click.echo(f"  {name:<12} {value:g}")
    if run.status == "queued":
        click.echo(f"next: espalier jobs logs {run.id}")


def format_value(name: str, value: Any) -> str:
    """A field's value as a person reads it: its name's unit decides."""
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name in _STAMPS:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value / 1000)) if value else ""
    if isinstance(value, int | float):
        return _format_number(name, value)
    if isinstance(value, dict):
        return ", ".join(f"{key}={format_value(key, item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(format_value(name, item) for item in value)
    if isinstance(value, BaseModel):
        return ", ".join(f"{key}={format_value(key, item)}" for key, item in value if item not in (None, "", (), {}))
    return str(value)


def _format_number(name: str, value: float) -> str:
    if name.endswith("_nusd"):
        return format_usd(int(value))
    if name.endswith("_ms"):
        return f"{value:,.0f} ms" if value < 10_000 else format_s(value / 1000)
    if name.endswith("_s"):
        return format_s(value)
    if name.endswith("_bytes"):
        return _format_bytes(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _format_bytes(value: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _field_lines(answer: BaseModel) -> list[str]:
    """A field a line; what is a thing itself, or several, comes indented under its name."""
    shown = [(name, value) for name, value in answer if format_value(name, value)]
    width = max((len(name) for name, value in shown if not _is_nested(value)), default=0)
    lines = []
    for name, value in shown:
        if _is_nested(value):
            within = _field_lines(value) if isinstance(value, BaseModel) else _list_lines(value)
            lines += [click.style(name, bold=True), *((_INDENT + line).rstrip() for line in within)]
            continue
        first, *more = format_value(name, value).split("\n")
        lines += [f"{click.style(name.ljust(width), bold=True)}  {first}", *(f"{' ' * width}  {line}" for line in more)]
    return lines


def _list_lines(things: Sequence[BaseModel]) -> list[str]:
    """A table; where the things hold others, which no cell has room for, one after another."""
    if not any(_is_nested(value) for thing in things for _, value in thing):
        return _table_lines(things, _CELL_CHARS * 2)
    return [line for i, thing in enumerate(things) for line in ([""] if i else []) + _field_lines(thing)]


def _is_nested(value: Any) -> bool:
    several = isinstance(value, list | tuple) and bool(value) and isinstance(value[0], BaseModel)
    return several or isinstance(value, BaseModel)


def _print_rows(rows: Sequence[Any]) -> None:
    if not rows:
        click.echo("none")
    elif isinstance(rows[0], BaseModel):
        click.echo("\n".join(_table_lines(rows, _CELL_CHARS)))
    else:
        click.echo("\n".join(format_value("", row) for row in rows))


def _table_lines(rows: Sequence[BaseModel], widest: int) -> list[str]:
    names = _columns(rows)
    cells = [[_cell(name, getattr(row, name), widest) for name in names] for row in rows]
    heads = [_head(name) for name in names]
    widths = [max(len(head), *(len(row[i]) for row in cells)) for i, head in enumerate(heads)]
    numeric = [isinstance(getattr(rows[0], name), int | float) and name not in _STAMPS for name in names]
    return [click.style(_line(heads, widths, numeric), bold=True), *(_line(row, widths, numeric) for row in cells)]


def _head(name: str) -> str:
    unit = next((unit for unit in _UNITS if name.endswith(unit)), "")
    return name.removesuffix(unit).upper().replace("_", " ")


def _columns(rows: Sequence[BaseModel]) -> list[str]:
    """The scalar fields that some row fills, as many as fit a line."""
    names = []
    for name in type(rows[0]).model_fields:
        values = [getattr(row, name) for row in rows]
        if any(isinstance(value, dict | list | tuple | BaseModel) for value in values):
            continue
        if any(format_value(name, value) not in ("", "0") for value in values):
            names.append(name)
    return names[:_COLUMNS]


def _cell(name: str, value: Any, widest: int) -> str:
    text = format_value(name, value).split("\n")[0]
    if len(text) == 64 and all(letter in "0123456789abcdef" for letter in text):
        return text[:_DIGEST_CHARS]
    return text if len(text) <= widest else text[: widest - 1] + "…"


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    parts = [
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(cells, widths, numeric, strict=True)
    ]
    return "  ".join(parts).rstrip()
