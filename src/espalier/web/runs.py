"""Runs: the list, and one run with its steps, its live loss curve and the before/after table."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from espalier.core.types import Run
from espalier.web import theme
from espalier.web.session import Gate

_LIVE = ("queued", "running")
_LEAST_LOSS = 1e-4  # what lies below is drawn there: the axis is logarithmic
_POLL_S = 1.0  # how often a live page asks for what is new


def add_pages(gate: Gate) -> None:
    """/runs and /runs/{id}."""

    @ui.page("/runs", response_timeout=theme.PATIENCE_S)
    async def list_runs() -> None:
        who = gate.who()
        if who is None:
            return
        with theme.frame("Runs", who):
            ui.label("Runs").classes("text-2xl font-semibold")
            runs = await gate.attempt("runs.list", limit=100) or []
            if not runs:
                theme.empty("Nothing has run in this workspace yet.", "espalier run recipes/support.yaml")
            for run in runs:
                _run_row(run)

    @ui.page("/runs/{run_id}", response_timeout=theme.PATIENCE_S)
    async def show_run(run_id: str) -> None:
        who = gate.who()
        if who is None:
            return
        with theme.frame("Runs", who):
            run = await gate.attempt("runs.show", id=run_id)
            if run is not None:
                await _RunView(gate, run).build()


def _run_row(run: Run) -> None:
    with (
        ui.link(target=f"/runs/{run.id}").classes("no-underline w-full").style("color: inherit"),
        ui.card().classes("sheet flex-row items-center gap-4 hover:bg-stone-50").props("data-testid=run"),
    ):
        theme.badge(run.status)
        with ui.column().classes("gap-0"):
            ui.label(run.name or run.step).classes("font-semibold")
            ui.label(run.id).classes("mono quiet")
        ui.space()
        ui.label(f"by {run.actor}").classes("quiet")
        ui.label(theme.show_duration(run.started_ms, run.ended_ms))
        ui.label(theme.show_time(run.created_ms)).classes("quiet")


class _RunView:
    """One run's page: built once, then fed with what is new while the run is live."""

    def __init__(self, gate: Gate, run: Run) -> None:
        self._gate = gate
        self._run = run
        self._after = 0  # events already shown
        self._points: dict[str, list[tuple[int, float]]] = {"loss": [], "validation": []}

    async def build(self) -> None:
        with ui.row().classes("items-center gap-3 w-full"):
            self._title = ui.label().classes("text-2xl font-semibold")
            self._status = ui.row().props("data-testid=status")
            ui.space()
            ui.label(self._run.id).classes("mono quiet")
        if self._run.error:
            with ui.card().classes("sheet items-start").style(f"border-color: {theme.CLAY}"):
                ui.label(self._run.error["message"]).style(f"color: {theme.CLAY}")
                ui.label(self._run.error.get("hint", "")).classes("quiet")
        self._table = ui.column().classes("w-full gap-2")
        with ui.card().classes("sheet") as self._chart_card:
            with ui.row().classes("items-baseline w-full"):
                ui.label("Loss").classes("font-semibold")
                ui.space()
                self._pace = ui.label().classes("mono quiet").props("data-testid=pace")
            self._chart = ui.echart(_chart_options()).classes("w-full h-64").props("data-testid=loss-curve")
        self._steps = ui.column().classes("w-full gap-0 sheet")
        await self._refresh()
        self._timer = ui.timer(_POLL_S, self._refresh, active=self._run.status in _LIVE)

    async def _refresh(self) -> None:
        self._run = await self._gate.call("runs.show", id=self._run.id)
        self._title.text = self._run.name or self._run.step
        self._status.clear()
        with self._status:
            theme.badge(self._run.status)
        self._show_steps(await self._gate.call("runs.list", parent=self._run.id, limit=1000))
        self._show_comparison(await self._gate.call("evals.table", run=self._run.id))
        news = await self._gate.call("runs.progress", id=self._run.id, after=self._after)
        self._after = news.next
        self._show_curve(news.events)
        if self._run.status not in _LIVE and hasattr(self, "_timer"):
            self._timer.deactivate()

    def _show_steps(self, children: list[Run]) -> None:
        self._steps.clear()
        with self._steps:
            ui.label("Steps" if children else "No steps yet").classes("font-semibold pb-2")
            for child in reversed(children):
                with ui.row().classes("items-center w-full gap-3 py-1 border-t").style(f"border-color: {theme.MIST}"):
                    with ui.row().classes("w-24"):
                        theme.badge(child.status)
                    ui.label(child.name or child.step).classes("w-40")
                    ui.label(child.step).classes("mono quiet")
                    ui.space()
                    if child.cache_hit_of:
                        ui.label("reused").classes("quiet")
                    ui.label(theme.show_duration(child.started_ms, child.ended_ms)).classes("w-24 text-right")

    def _show_curve(self, events: tuple[dict[str, Any], ...]) -> None:
        for event in events:
            if event["kind"] == "train.step" and "loss" in event:
                self._points["loss"].append((int(event["step"]), max(_LEAST_LOSS, float(event["loss"]))))
                self._pace.text = _describe_pace(event)
            elif event["kind"] == "train.eval" and "validation_loss" in event:
                self._points["validation"].append((int(event["step"]), max(_LEAST_LOSS, event["validation_loss"])))
        self._chart_card.visible = bool(self._points["loss"])
        for series, name in zip(self._chart.options["series"], ("loss", "validation"), strict=True):
            series["data"] = [list(point) for point in self._points[name]]
        self._chart.update()

    def _show_comparison(self, table: Any) -> None:
        self._table.clear()
        if not table.rows:
            return
        columns = [
            {"name": f"c{index}", "label": label, "field": f"c{index}", "align": "left"}
            for index, label in enumerate(table.columns)
        ]
        rows = [{f"c{index}": cell for index, cell in enumerate(row)} for row in table.rows]
        with self._table, ui.card().classes("sheet items-start gap-2"):
            ui.label("Before and after, on the held-out split").classes("font-semibold")
            ui.table(columns=columns, rows=rows, row_key="c0").classes("w-full").props("flat").props(
                "data-testid=comparison"
            )
            ui.label(table.caption).classes("quiet text-sm")


def _describe_pace(event: dict[str, Any]) -> str:
    parts = [f"step {event['step']}"]
    if "tokens_per_s" in event:
        parts.append(f"{event['tokens_per_s']:,.0f} tokens/s")
    if event.get("eta_s"):
        parts.append(f"{event['eta_s']:.0f} s left")
    return "  ·  ".join(parts)


def _chart_options() -> dict[str, Any]:
    axis = {"nameLocation": "middle", "nameGap": 28, "axisLine": {"lineStyle": {"color": "#5d6a62"}}}
    return {
        "animation": False,
        "grid": {"left": 56, "right": 16, "top": 28, "bottom": 44},
        "tooltip": {"trigger": "axis"},
        "legend": {"data": ["training", "validation"], "right": 0, "top": 0},
        "xAxis": {"type": "value", "name": "step", "minInterval": 1, **axis},
        "yAxis": {"type": "log", "name": "loss", **axis},  # a loss falls by powers of ten
        "series": [
            {"name": "training", "type": "line", "showSymbol": False, "data": [], "color": theme.LEAF},
            {"name": "validation", "type": "line", "symbolSize": 7, "data": [], "color": theme.CLAY},
        ],
    }
