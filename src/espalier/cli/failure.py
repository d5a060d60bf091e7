"""How a command ends badly: one clear sentence and what to do next, on stderr (JSON when asked), and its exit code."""

from __future__ import annotations

import json

import click

from espalier.core.errors import EspalierError, InvalidInput, did_you_mean


def report(error: EspalierError, *, as_json: bool) -> int:
    """Print the error and return the exit code of its class."""
    if as_json:
        click.echo(json.dumps({"error": error.to_json()}, ensure_ascii=False), err=True)
        return error.exit_code
    head = f"{error.where}: {error.message}" if error.where else error.message
    click.echo(click.style("error: ", fg="red", bold=True) + head, err=True)
    if error.hint:
        click.echo(click.style("next: ", bold=True) + error.hint, err=True)
    return error.exit_code


def from_click(error: click.ClickException) -> EspalierError:
    """click's own complaint (a wrong option, a missing argument) as ours."""
    hint = point_to_help(getattr(error, "ctx", None))
    message = error.format_message().rstrip(".")
    if isinstance(error, click.NoSuchOption):
        close = did_you_mean(error.option_name, error.possibilities or ())
        return InvalidInput(f"no such option: {error.option_name}", hint=close if "did you" in close else hint)
    return InvalidInput(message[:1].lower() + message[1:], hint=hint)


def point_to_help(context: click.Context | None) -> str:
    """The hint that names the command's help, in the words it was called by."""
    if context is None:
        return "`espalier --help` shows what it takes"
    parent = context.parent
    if parent is not None and parent.info_name == context.info_name:
        context = parent  # `espalier train`, a noun that is a verb too, stands for both
    return f"`{context.command_path} --help` shows what it takes"
