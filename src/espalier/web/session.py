"""Who sits at the browser: signed in with an API key, as every client is. Its identity is kept, the key is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicegui import app, run, ui

from espalier.core.errors import EspalierError, Unauthenticated
from espalier.core.types import Principal
from espalier.web import theme

Call = Callable[[Principal, str, dict[str, Any]], Any]  # (who, operation name, its fields) -> response
Authenticate = Callable[[str], Principal]  # API key -> identity; raises Unauthenticated


class Gate:
    """Calls operations for whoever is signed in, off the event loop; what fails is told on the page."""

    def __init__(self, call: Call, authenticate: Authenticate) -> None:
        self._call = call
        self.authenticate = authenticate

    def who(self) -> Principal | None:
        """The signed-in identity, or None: then the browser is on its way to the sign-in page."""
        kept = app.storage.user.get("principal")
        if kept is None:
            ui.navigate.to("/sign-in")
            return None
        return Principal.model_validate(kept)

    async def call(self, operation: str, /, **fields: Any) -> Any:
        """The operation's response; raises what it raises."""
        who = Principal.model_validate(app.storage.user["principal"])
        return await run.io_bound(self._call, who, operation, fields)

    async def attempt(self, operation: str, /, **fields: Any) -> Any:
        """Like `call`, but an error becomes a notice on the page and None."""
        try:
            return await self.call(operation, **fields)
        except EspalierError as error:
            notice = f"{error.message} {error.hint}".strip()
            ui.notify(notice, type="negative", timeout=0, close_button="OK")
            return None


def add_pages(gate: Gate) -> None:
    """/sign-in, /sign-out, and / which leads to the runs."""

    @ui.page("/sign-in")
    def sign_in() -> None:
        with theme.frame("Sign in", None), ui.card().classes("sheet max-w-lg mx-auto mt-16 gap-3"):
            ui.label("Sign in with an API key").classes("text-xl font-semibold")
            ui.label("Approvals and costs are booked on the key's owner. Make one at a terminal:").classes("quiet")
            ui.label("espalier keys create --name browser --role approver").classes("mono")
            key = ui.input("API key", password=True).props("outlined dense autofocus").classes("w-full")

            async def enter() -> None:
                try:
                    who = await run.io_bound(gate.authenticate, (key.value or "").strip())
                except Unauthenticated as error:
                    key.props("error").props(f'error-message="{error.message}"')
                    return
                app.storage.user["principal"] = who.model_dump()
                ui.navigate.to("/runs")

            key.on("keydown.enter", enter)
            ui.button("Sign in", on_click=enter).props("unelevated")

    @ui.page("/sign-out")
    def sign_out() -> None:
        app.storage.user.pop("principal", None)
        ui.navigate.to("/sign-in")

    @ui.page("/")
    def home() -> None:
        ui.navigate.to("/runs")
