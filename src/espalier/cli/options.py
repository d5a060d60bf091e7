"""The options every command takes, before or after its name: where, as whom, and how to print."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

# Parameter names no request can have: what the user sees is the flag.
COMMON = ("_json", "_quiet", "_workspace", "_actor", "_settings", "_server")


@dataclass(slots=True)
class Options:
    """What the command line said, whichever command it said it to."""

    as_json: bool = False
    quiet: bool = False
    workspace: Path | None = None
    actor: str = ""
    server: str = ""
    settings: list[str] = field(default_factory=list)

    def add(self, given: dict[str, Any]) -> None:
        """Take the common options out of `given`; a later word wins, settings add up."""
        for name in COMMON:
            value = given.pop(name, None)
            if name == "_settings":
                self.settings.extend(value or ())
            elif value not in (None, False):
                setattr(self, "as_json" if name == "_json" else name.removeprefix("_"), value)


def common_options() -> list[click.Parameter]:
    """Fresh parameters for one command."""
    return [
        click.Option(["--json", "_json"], is_flag=True, help="print JSON"),
        click.Option(["--quiet", "-q", "_quiet"], is_flag=True, help="print results only, no progress"),
        click.Option(
            ["--workspace", "-w", "_workspace"],
            type=click.Path(path_type=Path),
            help="the project's folder  [default: the nearest .espalier/ upwards]",
        ),
        click.Option(["--as", "_actor"], metavar="NAME", help="act as this person  [default: you]"),
        click.Option(["--set", "_settings"], metavar="KEY=VALUE", multiple=True, help="one setting for this command"),
        click.Option(
            ["--server", "_server"], metavar="URL", help="speak to a running `espalier serve` instead of the files"
        ),
    ]


def take_options(context: click.Context, given: dict[str, Any]) -> Options:
    """The options so far (from the commands above) with this command's own."""
    options = context.ensure_object(Options)
    options.add(given)
    return options


Body = Callable[[Options, dict[str, Any]], int | None]
