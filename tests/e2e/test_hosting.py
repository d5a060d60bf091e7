"""A server of two bases as its operator sees it: when it is ready, what it has loaded, and how one is let go."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from espalier.core.errors import Unavailable
from espalier.sdk.client import Client
from espalier.store.workspace import init_workspace

pytestmark = pytest.mark.slow


def get(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=240) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_an_operator_sees_what_is_loaded_and_lets_it_go(tmp_path: Path, serving: Any) -> None:
    folder = init_workspace(tmp_path / "house").root
    with serving(folder, "serve.port=0", "serve.max_batch=4", "serve.web=false") as url:
        # Who works on the workspace looks for its server where the settings say: by now its port is known.
        (folder / ".espalier" / "config.yaml").write_text(f"serve: {{port: {urlsplit(url).port}}}\n", "utf-8")
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
