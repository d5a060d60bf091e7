"""Where the server of this workspace listens, and what to do when none answers there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espalier.core.errors import Unavailable

if TYPE_CHECKING:
    from espalier.core.config import ServeConfig


def server_url(serve: ServeConfig) -> str:
    """`http://127.0.0.1:8321`, as the settings say."""
    host = f"[{serve.host}]" if ":" in serve.host else serve.host
    return f"http://{host}:{serve.port}"


def no_server(serve: ServeConfig, reason: object) -> Unavailable:
    """The error of who found nobody there."""
    return Unavailable(
        f"no server answers at {server_url(serve)} ({reason})",
        hint="start one: `espalier serve`; one that listens on another port is found by `--set serve.port=...`",
    )
