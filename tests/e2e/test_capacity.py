"""Capacity reserved while a server runs: held by it without a restart, found by requests, named in the usage."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from espalier.sdk.client import Client
from espalier.store.store import open_store
from espalier.store.workspace import find_workspace, init_workspace

pytestmark = pytest.mark.slow


def ask(url: str, secret: str, model: str) -> tuple[int, Any, str]:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=240) as reply:
            return reply.status, json.loads(reply.read()), reply.headers["x-request-id"]
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read()), ""


def test_a_reservation_made_while_the_server_runs_is_held_and_released(tmp_path: Path, serving: Any) -> None:
    folder = init_workspace(tmp_path / "house").root
    sharing = "sharing: {capacity_tokens_per_minute: 6000}"
    settings = f"serve: {{port: 0, max_batch: 4, web: false, {sharing}}}\n"
    (folder / ".espalier" / "config.yaml").write_text(settings, "utf-8")
    with serving(folder) as url, Client(folder, actor="ada") as owner:
        secret = owner.keys.create(role="user").secret
        assert ask(url, secret, "provisioned:gold")[0] == 404
        owner.capacity.reserve(model="builtin:seedling", name="gold", model_units=2)
        while (found := ask(url, secret, "provisioned:gold"))[0] == 404:  # the test's own time limit ends it
            time.sleep(0.1)
        status, answer, request = found
        assert (status, answer["model"]) == (200, "builtin:seedling")
        with closing(open_store(find_workspace(folder))) as store:
            row = next(row for row in store.ledger.find(request) if row.kind == "usage")
        assert row.detail["reservation"] == "gold"
        owner.capacity.release(name="gold")
        while ask(url, secret, "provisioned:gold")[0] != 404:
            time.sleep(0.1)
        assert ask(url, secret, "builtin:seedling")[0] == 200
