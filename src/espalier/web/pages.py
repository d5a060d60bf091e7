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
    # When the server starts, it looks at every object there is, torch's deprecated ones too.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"nicegui\.")
    ui.run_with(
        api,
        title="Espalier",
        favicon=Path(__file__).parent / "static" / "favicon.svg",
        storage_secret=secrets.token_hex(32),
        show_welcome_message=False,
    )
