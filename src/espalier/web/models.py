"""Models: every version with the policy's clauses, the evidence, and the buttons that decide."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from espalier.core.types import Principal
from espalier.web import theme
from espalier.web.session import Gate


def add_pages(gate: Gate) -> None:
    """/models."""

    @ui.page("/models", response_timeout=theme.PATIENCE_S)
    async def list_models() -> None:
        who = gate.who()
        if who is None:
            return
        with theme.frame("Models", who):
            ui.label("Models").classes("text-2xl font-semibold")

            @ui.refreshable
            async def versions() -> None:
                newest = await gate.attempt("models.list") or []
                listed = [each for model in newest for each in await gate.attempt("models.list", name=model.name) or []]
                if not listed:
                    theme.empty("No model version is registered yet.", "espalier run recipes/support.yaml")
                    return
                for version in listed:
                    detail = await gate.attempt("models.show", ref=version.ref)
                    if detail is not None:
                        _version_card(gate, who, detail, versions.refresh)

            await versions()


def _version_card(gate: Gate, who: Principal, detail: Any, refresh: Any) -> None:
    version = detail.version
    with ui.card().classes("sheet items-stretch gap-3").props("data-testid=model-version"):
        with ui.row().classes("items-center gap-3 w-full"):
            ui.label(version.ref.removeprefix("model:")).classes("text-lg font-semibold")
            theme.badge(version.status)
            for alias in detail.aliases:
                ui.badge(alias).props("outline").style(f"color: {theme.LEAF}").classes("px-2 py-1").props(
                    "data-testid=alias"
                )
            ui.space()
            ui.label(f"submitted by {version.submitted_by}, {theme.show_time(version.created_ms)}").classes("quiet")
        if version.description:
            ui.label(version.description)
        with ui.grid(columns="max-content 1fr").classes("gap-x-6 gap-y-1 mono"):
            facts = (
                ("base", f"{version.base}  {version.base_digest[:12]}"),
                ("adapter", version.adapter[:12]),
                ("dataset", version.dataset[:12]),
                ("run", version.run),
            )
            for name, value in facts:
                ui.label(name).classes("quiet")
                ui.label(value or "–")
        _clauses(detail.clauses)
        for approval in version.approvals:
            said = f"{approval.decision} by {approval.actor}, {theme.show_time(approval.at_ms)}"
            ui.label(f"{said}: {approval.comment}" if approval.comment else said)
        _buttons(gate, who, version, refresh)


def _clauses(clauses: Any) -> None:
    with ui.column().classes("gap-1"):
        ui.label("Policy").classes("font-semibold")
        for clause in clauses:
            with ui.row().classes("items-center gap-2 flex-nowrap").props("data-testid=clause"):
                ui.icon(
                    "check_circle" if clause.ok else "cancel", color=theme.LEAF if clause.ok else theme.CLAY, size="sm"
                )
                ui.label(clause.name.replace("_", " "))
                ui.label(clause.why).classes("quiet")


def _buttons(gate: Gate, who: Principal, version: Any, refresh: Any) -> None:
    async def decide(operation: str, **fields: Any) -> None:
        done = await gate.attempt(operation, ref=version.ref, **fields)
        if done is not None:
            ui.notify(f"{version.ref}: {done.status if hasattr(done, 'status') else 'done'}", type="positive")
            refresh()

    with ui.row().classes("items-center gap-2 w-full"):
        if version.status == "PendingManualApproval":
            comment = ui.input("Comment").props("outlined dense").classes("grow").props("data-testid=comment")
            approve = ui.button("Approve", on_click=lambda: decide("models.approve", comment=comment.value or ""))
            reject = ui.button("Reject", on_click=lambda: decide("models.reject", comment=comment.value or ""))
            approve.props("unelevated").props("data-testid=approve")
            reject.props("outline color=negative").props("data-testid=reject")
            if not who.may("approver"):
                for button in (approve, reject):
                    button.disable()
                    button.tooltip("needs a key with the role approver")
        elif version.status == "Approved":
            alias = ui.input("Alias", value="production").props("outlined dense").classes("w-48")
            promote = ui.button("Promote", on_click=lambda: decide("models.promote", alias=alias.value))
            promote.props("unelevated").props("data-testid=promote")
