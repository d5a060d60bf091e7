"""Mount the pages on the control plane's FastAPI app. Knows no operation's inner workings and no store."""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from espalier.core.errors import MissingExtra

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute
    from starlette.types import Scope

    from espalier.web.session import Authenticate, Call


def mount_pages(
    api: FastAPI, *, call: Call, authenticate: Authenticate, storage: Path, base_url: Callable[[], str]
) -> None:
    """Add /, /runs, /models, /serving and /playground to `api`.

    `storage` keeps the browser sessions; `base_url` gives the address of this very server, for the playground speaks to
    the OpenAI endpoint like any client. Raises MissingExtra when nicegui is not installed.
    """
    os.environ.setdefault("NICEGUI_STORAGE_PATH", str(storage))
    os.environ.setdefault("MPLBACKEND", "Agg")
    try:
        from nicegui import ui
    except ModuleNotFoundError as error:
        raise MissingExtra("the pages need nicegui", hint="pip install 'espalier[web]'") from error

    from espalier.web import models, playground, runs, serving, session

    gate = session.Gate(call, authenticate)
    session.add_pages(gate)
    runs.add_pages(gate)
    models.add_pages(gate)
    serving.add_pages(gate)
    playground.add_pages(gate, base_url)
    api.router.routes.append(_unknown_route())
    # When the server starts, it looks at every object there is, torch's deprecated ones too.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"nicegui\.")
    ui.run_with(
        api,
        title="Espalier",
        favicon=Path(__file__).parent / "static" / "favicon.svg",
        storage_secret=secrets.token_hex(32),
        show_welcome_message=False,
    )


def _unknown_route() -> BaseRoute:
    """What nobody answers and no browser asks for: nicegui is mounted at / and would answer it with a page."""
    from starlette.exceptions import HTTPException
    from starlette.routing import Match, Route

    class Unknown(Route):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            path, page = scope["path"], scope["type"] != "http" or scope["method"] in ("GET", "HEAD")
            if path.startswith("/_nicegui") or (page and not path.startswith("/v1/")):
                return Match.NONE, {}
            return super().matches(scope)

    async def refuse(request: Request) -> Response:
        raise HTTPException(404)  # the API words it

    return Unknown("/{path:path}", refuse, methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
