"""Serving: deployments with the shares of their versions, a canary's progress, the way back; every name there is."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from espalier.core.types import Principal
from espalier.web import theme
from espalier.web.session import Gate

_REVISIONS_SHOWN = 6


def add_pages(gate: Gate) -> None:
    """/serving."""

    @ui.page("/serving", response_timeout=theme.PATIENCE_S)
    async def show_serving() -> None:
        who = gate.who()
        if who is None:
            return
        with theme.frame("Serving", who):
            ui.label("Deployments").classes("text-2xl font-semibold")

            @ui.refreshable
            async def deployments() -> None:
                names = await gate.attempt("deployments.list") or []
                shared = [each.model for each in names if ":" not in each.model and "@" not in each.model]
                if not shared:
                    command = "espalier deployments split support --variants support@v1=90 --variants support@v2=10"
                    theme.empty("No deployment shares requests among versions.", command)
                for name in shared:
                    view = await gate.attempt("deployments.show", name=name)
                    if view is not None:
                        _deployment_card(gate, who, view, deployments.refresh)

            await deployments()
            ui.label("Every name clients may ask for").classes("text-2xl font-semibold mt-4")
            _names_table(await gate.attempt("deployments.list") or [])


def _deployment_card(gate: Gate, who: Principal, view: Any, refresh: Any) -> None:
    deployment = view.deployment
    with ui.card().classes("sheet items-stretch gap-3").props("data-testid=deployment"):
        with ui.row().classes("items-center gap-3 w-full"):
            ui.label(deployment.name).classes("text-lg font-semibold")
            if deployment.canary is not None:
                ui.badge("canary", color=theme.SUN).classes("px-2 py-1")
            ui.space()
            ui.label(f"revision {deployment.revision}, {theme.show_time(deployment.at_ms)}").classes("quiet")
        _shares(view.shares)
        if deployment.canary is not None:
            _canary(deployment.canary)
        for shadow in deployment.shadows:
            ui.label(f"{shadow.model.removeprefix('model:')} answers {shadow.share:.0%} unheard").classes("quiet")
        _revisions(view.revisions)
        _way_back(gate, who, deployment, refresh)


def _shares(shares: str) -> None:
    """`support@v1 90%, support@v2 10%` as one bar, each part with its version's name."""
    parts = [part.rsplit(" ", 1) for part in shares.split(", ")]
    with ui.row().classes("w-full gap-0 flex-nowrap rounded overflow-hidden").props("data-testid=shares"):
        for number, (version, share) in enumerate(parts):
            colour = (theme.LEAF, theme.SUN, theme.STONE, theme.CLAY)[number % 4]
            style = f"width: {share}; min-width: 9rem; background: {colour}; color: white"
            with ui.element("div").classes("px-3 py-1 whitespace-nowrap").style(style):
                ui.label(f"{version} {share}").classes("text-sm")


def _canary(canary: Any) -> None:
    steps = " → ".join(
        f"[{share:g} %]" if number == canary.step else f"{share:g} %"
        for number, share in enumerate(canary.steps_percent)
    )
    ui.label(
        f"{canary.candidate.removeprefix('model:')}: {steps}; a step lasts {canary.step_s:g} s and "
        f"{canary.min_requests} requests; taken back above {canary.max_error_rate:.1%} errors or "
        f"{canary.max_latency_ratio:g} times the others' latency"
    )


def _revisions(revisions: Any) -> None:
    with ui.grid(columns="max-content max-content max-content 1fr").classes("gap-x-6 gap-y-1 mono"):
        for revision in revisions[:_REVISIONS_SHOWN]:
            ui.label(theme.show_time(revision.at_ms)).classes("quiet")
            ui.label(revision.action)
            ui.label(revision.actor).classes("quiet")
            ui.label(revision.reason or "–").classes("quiet")


def _way_back(gate: Gate, who: Principal, deployment: Any, refresh: Any) -> None:
    if not deployment.below:
        return

    async def go_back() -> None:
        done = await gate.attempt("deployments.rollback", name=deployment.name, reason=reason.value or "")
        if done is not None:
            ui.notify(f"{deployment.name} is back at what answered before", type="positive")
            refresh()

    with ui.row().classes("items-center gap-2 w-full"):
        reason = ui.input("Reason").props("outlined dense").classes("grow")
        button = ui.button("Roll back", on_click=go_back).props("outline color=negative data-testid=rollback")
        if not who.may("approver"):
            button.disable()
            button.tooltip("needs a key with the role approver")


def _names_table(names: list[Any]) -> None:
    columns = [
        {"name": name, "label": label, "field": name, "align": "left"}
        for name, label in (("model", "asked for as"), ("resolved", "answered by"), ("adapter", "adapter"))
    ]
    rows = [
        {"model": each.model, "resolved": each.resolved.removeprefix("model:"), "adapter": each.adapter[:12]}
        for each in names
    ]
    ui.table(columns=columns, rows=rows, row_key="model").classes("w-full sheet").props("flat data-testid=names")
