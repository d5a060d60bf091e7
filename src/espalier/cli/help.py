"""Help pages: paragraphs are wrapped, indented lines (examples) stay as they are, common options come last and small.

Colour only where it is a terminal; click sees to that.
"""

from __future__ import annotations

import inspect
from typing import Any

import click

from espalier.cli.options import COMMON

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class HelpfulCommand(click.Command):
    """A command whose help text keeps its examples, and whose own options come before the common ones."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        settings.setdefault("context_settings", CONTEXT)
        super().__init__(*args, **settings)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx  # click's parser does not say whose option lacks its value
            raise

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_text(formatter, self.help or "")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Options": [], "Common options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None or isinstance(parameter, click.Argument):
                continue
            if parameter.name in COMMON or parameter.name == "help":
                sections["Common options"].append(record)
            else:
                sections["Options"].append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def write_text(formatter: click.HelpFormatter, text: str) -> None:
    """Paragraphs wrapped to the width; indented lines and headings ending in a colon verbatim."""
    for block in inspect.cleandoc(text).split("\n\n"):
        formatter.write_paragraph()
        lines = block.split("\n")
        head = [line for line in lines if not line.startswith("  ")]
        kept = [line for line in lines if line.startswith("  ")]
        with formatter.indentation():
            if head:
                formatter.write_text(" ".join(head).replace("`", ""))
        for line in kept:
            formatter.write(f"{line}\n")


def first_line(text: str) -> str:
    """A command's one line in a list."""
    return inspect.cleandoc(text or "").split("\n")[0].rstrip(".").replace("`", "")
