"""The commands that are no operation: those that run a server, or speak of the command line itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from espalier.cli.help import HelpfulCommand
from espalier.cli.options import common_options, take_options
from espalier.core.errors import InvalidInput, did_you_mean

_SHELLS = ("bash", "zsh", "fish")


def extra_commands() -> dict[str, click.Command]:
    """Name -> command."""
    return {"completion": _completion(), "demo": _demo(), "serve": _serve()}


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


def _serve() -> click.Command:
    def run(**given: Any) -> int:
        options = take_options(click.get_current_context(), given)
        from espalier.cli.server import serve
        from espalier.services.context import open_context

        context = open_context(options.workspace, options.settings, options.actor)

        def announce(url: str) -> None:
            if options.as_json:
                click.echo(json.dumps({"url": url}))
            else:
                click.echo(f"Espalier answers at {url}")
                click.echo(f"  OpenAI endpoint  {url}/v1        pages  {url}        Ctrl-C stops it")
            sys.stdout.flush()

        def stopping() -> None:
            if not options.as_json:
                click.echo("stopping: answers under way are finished first; Ctrl-C again stops at once", err=True)

        serve(context, warm=not given["cold"], announce=announce, stopping=stopping)
        return 0

    return HelpfulCommand(
        "serve",
        callback=run,
        params=[
            click.Option(["--cold"], is_flag=True, help="load models when they are first asked for, not at the start"),
            *common_options(),
        ],
        help="""Answer over HTTP: the OpenAI endpoint, the native API, the pages, and a worker on the queue.

        One frozen base serves every adapter trained on it; models are named by alias, e.g. support@production. Listens
        on loopback unless `serve.host` says otherwise, and wants an API key (`espalier keys create`).

        Example:
            espalier serve --set serve.port=8080
        """,
    )


def _demo() -> click.Command:
    def run(**given: Any) -> int:
        options = take_options(click.get_current_context(), given)
        from espalier.cli.demo import run_demo

        return run_demo(given["folder"], seed=given["seed"], files=given["files"], options=options)

    return HelpfulCommand(
        "demo",
        callback=run,
        params=[
            click.Option(
                ["--folder"],
                type=click.Path(path_type=Path),
                default=Path("espalier-demo"),
                show_default=True,
                help="where the made-up company and its workspace go",
            ),
            click.Option(["--seed"], type=int, default=7, show_default=True, help="another seed, another company"),
            click.Option(["--files"], type=int, default=300, show_default=True, help="how many documents to make up"),
            *common_options(),
        ],
        help="""Walk one model through its whole life on made-up support tickets, in about three minutes.

        Documents to dataset, prompt, scores before, fine-tuning, scores after, gate, approval by a second person,
        alias, server, a question through the OpenAI client, and the trace from the answer back to the pages. The
        second run takes seconds: every step is a cache hit and says why.

        Example:
            espalier demo --folder /tmp/larkspur
        """,
    )
