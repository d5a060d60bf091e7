"""The commands that are no operation: those that run a server, or speak of the command line itself."""

from __future__ import annotations

from typing import Any

import click

from espalier.cli.help import HelpfulCommand
from espalier.core.errors import InvalidInput, did_you_mean

_SHELLS = ("bash", "zsh", "fish")


def extra_commands() -> dict[str, click.Command]:
    """Name -> command."""
    return {"completion": _completion()}


def _completion() -> click.Command:
    def show(**given: Any) -> int:
        from click.shell_completion import get_completion_class

        shell = given["shell"]
        completer = get_completion_class(shell)
        if shell not in _SHELLS or completer is None:
            raise InvalidInput(f"no completion for {shell!r}", hint=did_you_mean(shell, _SHELLS))
        root = click.get_current_context().find_root().command
        click.echo(completer(root, {}, "espalier", "_ESPALIER_COMPLETE").source())
        return 0

    return HelpfulCommand(
        "completion",
        callback=show,
        params=[click.Argument(["shell"], metavar="SHELL", help="bash, zsh or fish")],
        help="""Print shell completion.

        Example:
            eval "$(espalier completion bash)"       # in ~/.bashrc
        """,
    )
