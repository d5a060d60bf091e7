"""Events and streamed answers: on a terminal a status line that is overwritten, elsewhere plain lines."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import click

from espalier.cli.options import Options
from espalier.cli.progress import Progress
from espalier.core.events import IDLE, Event

_FRAME_S = 0.1
_PLAIN_EVERY = 0.25  # without a terminal: a line at each quarter of a piece of work


@contextmanager
def watch_run(options: Options) -> Iterator[Callable[[Event], None]]:
    """A callback that shows a run's events on stderr: stdout holds results only. Quiet and --json show nothing."""
    if options.quiet or options.as_json:
        yield _show_nothing
        return
    screen = _Screen(terminal=sys.stderr.isatty())
    try:
        yield screen.take
    finally:
        screen.clear()


def show_stream(items: Iterator[Any], options: Options) -> None:
    """Print a stream as it comes: text pieces as text, events as progress, anything as JSON lines under --json."""
    try:
        if options.as_json:
            for item in items:
                if getattr(item, "kind", "") != IDLE:
                    click.echo(_to_json(item))
            return
        screen = _Screen(terminal=sys.stderr.isatty())
        wrote_text = False
        for item in items:
            if isinstance(item, Event):
                if wrote_text:
                    click.echo()
                    wrote_text = False
                if not options.quiet:
                    screen.take(item)
            else:
                click.echo(item.text, nl=False)
                wrote_text = True
        if wrote_text:
            click.echo()
    finally:
        if isinstance(items, Generator):
            items.close()


def _show_nothing(event: Event) -> None:
    """For who does not watch."""


class _Screen:
    """Where progress is drawn."""

    def __init__(self, *, terminal: bool) -> None:
        self._terminal = terminal
        self._progress = Progress()
        self._drawn_at_s = 0.0
        self._quarter = -1

    def take(self, event: Event) -> None:
        for line in self._progress.take(event):
            self.clear()
            click.echo(line, err=True)
        if self._terminal:
            self._draw()
        else:
            self._write_plain()

    def clear(self) -> None:
        """Take the status line away."""
        if self._terminal:
            click.echo("\r\x1b[2K", nl=False, err=True)

    def _draw(self) -> None:
        if time.monotonic() - self._drawn_at_s < _FRAME_S:
            return
        self._drawn_at_s = time.monotonic()
        width = shutil.get_terminal_size().columns - 1
        click.echo(f"\r\x1b[2K{self._progress.status[:width]}", nl=False, err=True)

    def _write_plain(self) -> None:
        quarter = int(self._progress.share / _PLAIN_EVERY)
        if self._progress.status and quarter != self._quarter:
            click.echo(self._progress.status, err=True)
        self._quarter = quarter if self._progress.status else -1


def _to_json(item: Any) -> str:
    from pydantic import TypeAdapter

    return (
        item.to_json()
        if isinstance(item, Event)
        else json.dumps(TypeAdapter(type(item)).dump_python(item, mode="json"))
    )
