"""An operation as a command: its fields are the flags, its shape decides how the answer is shown.

answer -> printed       stream -> printed as it comes       job -> done here with live progress, or queued with --detach
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from espalier.cli.failure import point_to_help
from espalier.cli.fields import fields_of, parameters_of
from espalier.cli.help import HelpfulCommand, first_line
from espalier.cli.options import Options, common_options, take_options
from espalier.core.errors import InvalidInput
from espalier.core.operations import Operation
from espalier.sdk.client import Client, RunHandle


def make_command(operation: Operation, name: str) -> click.Command:
    """The command derived from an operation. Its parameters are read from the request only when it is used."""
    return _OperationCommand(operation, name)


class _OperationCommand(HelpfulCommand):
    """Parameters are made on first use: `espalier --help` lists many commands and runs none."""

    def __init__(self, operation: Operation, name: str) -> None:
        super().__init__(name, help=operation.help, short_help=first_line(operation.summary), callback=self._run)
        self._operation = operation
        self._made = False

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        if not self._made:
            self.params = [*parameters_of(self._operation.request, self._operation.positional), *common_options()]
            if self._operation.shape == "job":
                detach = click.Option(["--detach"], is_flag=True, help="queue it for a worker and return at once")
                self.params.insert(-len(common_options()), detach)
            self._made = True
        return super().get_params(ctx)

    def make_parser(self, ctx: click.Context) -> Any:
        self.get_params(ctx)
        return super().make_parser(ctx)

    def _run(self, **given: Any) -> int:
        context = click.get_current_context()
        options = take_options(context, given)
        detach = given.pop("detach", False)
        fields = fields_of(self._operation.request, given)
        try:
            return call_and_show(self._operation, fields, options, detach=detach)
        except InvalidInput as error:
            error.hint = error.hint or point_to_help(context)
            raise


def call_and_show(operation: Operation, fields: dict[str, Any], options: Options, *, detach: bool = False) -> int:
    """Call an operation through the SDK and print what came back; returns the exit code.

    Raises whatever the operation raises.
    """
    with open_client(options) as client:
        answer = client.call(operation.name, **fields)
        if isinstance(answer, RunHandle):
            return _follow(answer, options, detach=detach)
        if operation.shape == "stream":
            from espalier.cli.live import show_stream

            show_stream(answer, options)
            return 0
        from espalier.cli.render import show_answer

        show_answer(answer, operation, options)
        return exit_code_of(answer)


def open_client(options: Options) -> Client:
    """The SDK's client for what the options say: these files, or a server."""
    return Client(options.workspace, actor=options.actor, url=options.server, overrides=options.settings)


def exit_code_of(answer: Any) -> int:
    """An answer may say how the command ends: a check that found something wrong answers, and exits with 1."""
    code = getattr(answer, "exit_code", 0)
    return code if isinstance(code, int) else 0


def _follow(handle: RunHandle, options: Options, *, detach: bool) -> int:
    from espalier.cli.live import watch_run
    from espalier.cli.render import show_run

    if detach:
        show_run(handle.detach(), options)
        return 0
    with watch_run(options) as on_event:
        run = handle.wait(on_event)
    show_run(run, options)
    return 0 if run.status == "succeeded" else 130


Show = Callable[[Any, Options], None]
