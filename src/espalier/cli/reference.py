"""The reference of every command, written from the operations table: `python -m espalier.cli.reference docs/cli.md`.

A test fails when the committed page and the table differ, so the page cannot drift.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import click

from espalier.cli import layout
from espalier.cli.commands import make_command
from espalier.cli.main import Root
from espalier.cli.options import COMMON
from espalier.core.operations import Operation

_HEAD = """\
# Commands

Written by `make docs` from the operations table; do not edit. Every operation is a command, a method of the SDK
(`espalier.sdk.client.Client`) and an HTTP route, with the same fields and the same errors.

    espalier NOUN VERB [ARGUMENTS] [OPTIONS]

## Options of every command
"""

_EXIT_CODES = """\
## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | a bug, or a check that found something wrong |
| 2 | the request, recipe or file is wrong |
| 3 | something named does not exist |
| 4 | a conflict: it moved, it exists, it is not the one recorded |
| 5 | a gate or policy clause refused |
| 6 | an optional package is absent |
| 7 | your identity may not do this |
| 8 | a budget or rate limit is used up |
| 9 | no key, or an unknown one |
| 10 | the disk is full |
| 11 | stopping, overloaded or too slow; try again |
| 130 | stopped by Ctrl-C; the same command goes on from there |

Errors are one sentence and a next step on stderr; with `--json`, `{"error": {"code", "message", "hint", "where"}}`.
"""


def write_reference() -> str:
    """The page as Markdown."""
    root = Root()
    context = click.Context(root, info_name="espalier")
    short = {target: word for word, target in layout.SHORT.items() if target in root.table}
    spelled = {noun: word for word, noun in layout.NOUNS.items()}
    parts = [_HEAD, _options([option for option in root.params if option.name in COMMON])]
    for operation in _in_order(root, context):
        name = f"{spelled.get(operation.noun, operation.noun)} {operation.verb.replace('_', '-')}"
        parts.append(_operation(operation, name, short.get(operation.name, "")))
    for name in sorted(root.extra):
        parts.append(_section(root.extra[name], name))
    parts.append(_EXIT_CODES)
    return "\n".join(parts)


def _in_order(root: Root, context: click.Context) -> list[Operation]:
    """Operations as `espalier --help` orders their nouns and short names."""
    names = [name for rows in root.sections(context).values() for name, _ in rows]
    order: dict[str, int] = {}
    for place, name in enumerate(names):
        target = layout.SHORT.get(name)
        order.setdefault(target.split(".")[0] if target else layout.NOUNS.get(name, name), place)
    operations = root.table.values()
    return sorted(operations, key=lambda operation: (order.get(operation.noun, len(order)), operation.name))


def _operation(operation: Operation, name: str, short: str) -> str:
    command = make_command(operation, name)
    spoken = f"espalier {short}`, `espalier {name}" if short else f"espalier {name}"
    faces = f"SDK `client.{operation.name}(...)` · HTTP `{operation.route}` · {operation.shape} · role {operation.role}"
    return _section(command, f"{name}", usage=spoken, faces=faces)


def _section(command: click.Command, name: str, *, usage: str = "", faces: str = "") -> str:
    context = click.Context(command, info_name=f"espalier {name}")
    own = [o for o in command.get_params(context) if o.name not in COMMON and "--help" not in o.opts]
    arguments = [option.make_metavar(context) for option in own if isinstance(option, click.Argument)]
    lines = [
        f"## {name}",
        "",
        f"`{usage or f'espalier {name}'}` {' '.join(f'`{word}`' for word in arguments)}".rstrip(),
    ]
    lines += ["", inspect.cleandoc(command.help or "").replace(":\n    ", ":\n\n    "), ""]
    if own:
        lines.append(_options(own, context))
    if faces:
        lines += [faces, ""]
    return "\n".join(lines)


def _options(options: list[click.Parameter], context: click.Context | None = None) -> str:
    context = context or click.Context(click.Command("espalier"))
    rows = ["| | |", "|---|---|"]
    for option in options:
        record = option.get_help_record(context)
        if record is not None:
            shown, text = (part.replace("|", "\\|") for part in record)
            rows.append(f"| `{shown}` | {text} |")
    return "\n".join([*rows, ""])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(write_reference(), "utf-8")
