"""`espalier`: the entry point. Commands are read off the operations table; a few are hand-written for comfort.

Start-up is a design output: nothing here imports a stage, a web framework or a database; an operation's module is
imported for its name and help, and what it needs when it runs.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import click

from espalier import __version__
from espalier.cli import layout
from espalier.cli.commands import make_command
from espalier.cli.extra import extra_commands
from espalier.cli.failure import from_click, report
from espalier.cli.help import CONTEXT, HelpfulCommand, first_line, write_text
from espalier.cli.options import Options, common_options, take_options
from espalier.core.errors import EspalierError, Interrupted, InvalidInput, StorageFull, did_you_mean
from espalier.core.operations import Operation, broken_operations, load_operations

_WIDEST = 11  # so that the lines of all sections stand in one column
_BROKEN_PIPE = 141  # what a shell reports for a program that SIGPIPE ended


class Verbs(click.Group):
    """A noun: its commands are the verbs of the operations under it."""

    def __init__(self, name: str, operations: Sequence[Operation], summary: str) -> None:
        super().__init__(name, help=summary, short_help=summary, params=common_options(), context_settings=CONTEXT)
        self.no_args_is_help = True
        self.callback = lambda **given: take_options(click.get_current_context(), given)
        for operation in operations:
            verb = operation.verb.replace("_", "-")
            self.add_command(make_command(operation, verb))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        _check_known(self, ctx, args[0])
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)


class VerbsOrDefault(Verbs):
    """A noun that is a verb too: `train recipe.yaml` tunes, `train search` searches. What is no verb is an argument."""

    def __init__(self, name: str, operations: Sequence[Operation], summary: str, default: Operation) -> None:
        super().__init__(name, operations, summary)
        self.context_settings = {**CONTEXT, "ignore_unknown_options": True}
        self._default = make_command(default, name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in self.commands:
            return super().resolve_command(ctx, args)
        return self._default.name, self._default, args

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self._default.format_help(ctx, formatter)
        self.format_commands(ctx, formatter)


class Root(click.Group):
    """All commands, in the order of a model's life."""

    def __init__(self) -> None:
        super().__init__(
            "espalier",
            help="The whole life of a customised foundation model, on your own machine.",
            params=[*common_options(), _version_option()],
            context_settings=CONTEXT,
            callback=lambda **given: take_options(click.get_current_context(), given),
            no_args_is_help=True,
        )
        self._table: Mapping[str, Operation] | None = None
        self.extra = extra_commands()

    @property
    def table(self) -> Mapping[str, Operation]:
        if self._table is None:
            self._table = load_operations()
        return self._table

    def list_commands(self, ctx: click.Context) -> list[str]:
        ordered = [name for section in layout.SECTIONS.values() for name, _ in section]
        nouns = {operation.noun for operation in self.table.values()}
        names = [*ordered, *sorted(nouns | set(self.extra) - set(ordered))]
        return [name for name in dict.fromkeys(names) if self.get_command(ctx, name) is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.extra:
            return self.extra[cmd_name]
        short = self.table.get(layout.SHORT.get(cmd_name, ""))
        noun = layout.NOUNS.get(cmd_name, cmd_name)
        under = [operation for operation in self.table.values() if operation.noun == noun]
        if short is not None and cmd_name in layout.NOUNS:
            others = [operation for operation in under if operation.name not in layout.SHORT.values()]
            return VerbsOrDefault(cmd_name, others, _summary(cmd_name, under), short)
        if short is not None:
            return make_command(short, cmd_name)
        return Verbs(cmd_name, under, _summary(cmd_name, under)) if under else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        _check_known(self, ctx, args[0])
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.width = 110
        formatter.write(f"Usage: {ctx.command_path} COMMAND ...\n")
        write_text(formatter, self.help or "")
        for title, names in self.sections(ctx).items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(_WIDEST), line) for name, line in names])
        write_text(formatter, layout.EPILOG)
        for name, why in broken_operations().items():
            formatter.write(f"\nThe plug-in {name!r} could not be loaded: {why}\n")

    def sections(self, ctx: click.Context) -> dict[str, list[tuple[str, str]]]:
        """Heading -> (command, one line); what no section names, and no short name covers, stands under More."""
        known = set(self.list_commands(ctx))
        found = {title: [row for row in rows if row[0] in known] for title, rows in layout.SECTIONS.items()}
        placed = {name for rows in layout.SECTIONS.values() for name, _ in rows} | set(layout.NOUNS.values())
        covered = set(layout.SHORT.values())
        more = []
        for name in sorted(known - placed):
            command = self.get_command(ctx, name)
            verbs = {f"{name}.{verb}" for verb in command.commands} if isinstance(command, click.Group) else {""}
            if command is not None and not verbs <= covered:
                more.append((name, first_line(command.short_help or command.help or "")))
        return {title: rows for title, rows in {**found, "More": more}.items() if rows}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Never raises but for a bug in itself."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    try:
        return _invoke(given)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except click.ClickException as error:
        return report(from_click(error), as_json=as_json)
    except EspalierError as error:
        return report(error, as_json=as_json)
    except (KeyboardInterrupt, click.Abort):
        stopped = Interrupted("stopped by Ctrl-C", hint="run the same command again: what was finished is kept")
        return report(stopped, as_json=as_json)
    except BrokenPipeError:
        # The reader (`| head`) has gone; keep Python from complaining about it once more while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except OSError as error:
        return report(_from_system(error), as_json=as_json)
    except Exception as error:  # noqa: BLE001 - the last place a bug can be told from a mistake
        if "--set" in given and "log_level=debug" in given:
            traceback.print_exc()
        from espalier.core.faults import summarise

        hint = "this is a bug: run it again with `--set log_level=debug` and report the traceback"
        return report(EspalierError(summarise(error), hint=hint), as_json=as_json)


def _invoke(arguments: list[str]) -> int:
    if "_ESPALIER_COMPLETE" in os.environ:
        Root().main(arguments, prog_name="espalier", complete_var="_ESPALIER_COMPLETE")
    code = Root().main(arguments, prog_name="espalier", standalone_mode=False, obj=Options())
    sys.stdout.flush()
    return code if isinstance(code, int) else 0


def _from_system(error: OSError) -> EspalierError:
    where = str(error.filename or "")
    if error.errno == errno.ENOSPC:
        return StorageFull("the disk is full", where=where, hint="free some space and run the same command again")
    return InvalidInput(error.strerror or str(error), where=where, hint="check the path and its permissions")


def _check_known(group: click.Group, ctx: click.Context, name: str) -> None:
    if not ctx.resilient_parsing and not name.startswith("-") and group.get_command(ctx, name) is None:
        close = did_you_mean(name, group.list_commands(ctx))
        hint = close if close.startswith("did") else f"`{ctx.command_path} --help` lists them"
        raise InvalidInput(f"no command `{ctx.command_path} {name}`", hint=hint)


def _summary(name: str, under: Sequence[Operation]) -> str:
    for rows in layout.SECTIONS.values():
        for known, line in rows:
            if known == name:
                return line
    return ", ".join(operation.verb for operation in under)


def _version_option() -> click.Option:
    def show(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        if value and not ctx.resilient_parsing:
            click.echo(f"espalier {__version__}")
            ctx.exit()

    return click.Option(
        ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=show, help="show the version"
    )


if __name__ == "__main__":
    raise SystemExit(main())


__all__ = ["HelpfulCommand", "Root", "main"]
