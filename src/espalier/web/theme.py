"""What every page looks like: colours, header, and the small pieces that more than one page shows."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager

from nicegui import ui

from espalier.core.types import Principal

PATIENCE_S = 30  # a page waits so long for the store on a busy machine

# One green, the colour of what grows along the frame; everything else is ink on paper.
INK, PAPER, LEAF, CLAY, SUN, MIST = "#1c2b22", "#fbfaf6", "#2f6b46", "#a8402d", "#b7791f", "#e6e4da"
STONE = "#6b7280"
STATUS_COLOURS = {
    "succeeded": LEAF, "running": SUN, "queued": STONE, "failed": CLAY, "cancelled": STONE,
    "Approved": LEAF, "PendingManualApproval": SUN, "Rejected": CLAY,
}  # fmt: skip

_CSS = f"""
body {{ background: {PAPER}; color: {INK}; font-feature-settings: "tnum"; }}
.nicegui-content {{ max-width: 1080px; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; gap: 1.25rem; }}
.sheet {{ background: white; border: 1px solid {MIST}; border-radius: 10px; box-shadow: none; padding: 1.1rem 1.25rem;
  width: 100%; }}
.quiet {{ color: #5d6a62; }}
.mono {{ font-family: ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; font-size: 0.82rem; }}
.answer {{ white-space: pre-wrap; overflow-wrap: anywhere; min-height: 9rem; }}
.q-table th {{ font-weight: 600; color: #5d6a62; }}
.q-table__card {{ box-shadow: none; }}
"""


@contextmanager
def frame(title: str, who: Principal | None) -> Iterator[None]:
    """The page's frame: header with navigation, and the content column."""
    ui.page_title(f"{title} · Espalier")
    ui.colors(primary=LEAF, secondary=INK, accent=SUN, positive=LEAF, negative=CLAY, warning=SUN)
    ui.add_css(_CSS)
    with ui.header().classes("items-center gap-6 px-6 py-2").style(f"background: {INK}"):
        ui.link("Espalier", "/").classes("text-white text-lg font-semibold no-underline")
        if who is not None:
            for name, path in (
                ("Runs", "/runs"),
                ("Models", "/models"),
                ("Serving", "/serving"),
                ("Playground", "/playground"),
            ):
                weight = "font-semibold underline underline-offset-8" if name == title else "opacity-80"
                ui.link(name, path).classes(f"text-white no-underline {weight}")
            ui.space()
            ui.label(f"{who.actor} · {who.role}").classes("text-white text-sm opacity-80").props("data-testid=identity")
            ui.link("Sign out", "/sign-out").classes("text-white text-sm opacity-80")
    yield


def badge(status: str) -> None:
    """A run's or a model version's status as a coloured word."""
    words = {"PendingManualApproval": "pending approval"}.get(status, status.lower())
    ui.badge(words, color=STATUS_COLOURS.get(status, STONE)).classes("px-2 py-1")


def empty(text: str, command: str) -> None:
    """What a page says while there is nothing to show, and the command that changes that."""
    with ui.card().classes("sheet items-start"):
        ui.label(text)
        ui.label(command).classes("mono")


def show_time(at_ms: int) -> str:
    """Local date and time, to the second; a dash for never."""
    if not at_ms:
        return "–"
    return datetime.datetime.fromtimestamp(at_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def show_duration(started_ms: int, ended_ms: int) -> str:
    """`12.3 s` or `4 min 5 s`; a dash while it is not over."""
    if not started_ms or not ended_ms:
        return "–"
    seconds = (ended_ms - started_ms) / 1000
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
