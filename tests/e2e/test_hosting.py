"""A server of two bases as its operator sees it: when it is ready, what it has loaded, and how one is let go."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from espalier.core.errors import Unavailable
from espalier.sdk.client import Client
from espalier.store.workspace import init_workspace

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def get(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=60) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_an_operator_sees_what_is_loaded_and_lets_it_go(tmp_path: Path, serving: Any) -> None:
    folder, port = init_workspace(tmp_path / "house").root, free_port()
    (folder / ".espalier" / "config.yaml").write_text(f"serve: {{port: {port}, max_batch: 4, web: false}}\n", "utf-8")
    with serving(folder) as url:
        while get(f"{url}/readyz") != (200, {"status": "ready", "cold": 0}):  # the test's own time limit ends it
            time.sleep(0.05)
        assert get(f"{url}/healthz")[0] == 200
        with Client(folder, actor="ada") as owner:
            assert owner.deployments.engines() == []
            list(owner.inference.ask(question="hello", max_tokens=4))
            (loaded,) = owner.deployments.engines()
            secret = owner.keys.create(role="approver").secret
            with pytest.raises(Unavailable, match="not in this one"):
                owner.deployments.unload(base="builtin:seedling")
            assert (loaded.base, loaded.state, loaded.running) == ("builtin:seedling", "ready", 0)
            assert loaded.memory_bytes > 1_000_000
            remote = Client(url=url, key=secret)
            assert remote.deployments.unload(base="builtin:seedling") == []
            list(owner.inference.ask(question="hello", max_tokens=4))  # asked again, it is loaded again
            assert [each.base for each in remote.deployments.engines()] == ["builtin:seedling"]
