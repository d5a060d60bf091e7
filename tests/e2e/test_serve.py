"""`espalier serve` as a process: it answers the SDK, refuses a port in use, and stops cleanly when told to."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from espalier.core.errors import Conflict, Unauthenticated
from espalier.sdk.client import Client
from espalier.store.workspace import init_workspace

pytestmark = pytest.mark.slow
_COMMAND = (sys.executable, "-m", "espalier.cli.main", "serve", "--json")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return init_workspace(tmp_path_factory.mktemp("served")).root


@pytest.fixture(scope="module")
def server(project: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ESPALIER_")}
    command = [*_COMMAND, "--set", "serve.port=0", "-w", str(project)]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"], process
        process.kill()


def test_every_operation_is_reached_over_http_with_a_key(
    server: tuple[str, subprocess.Popen[str]], project: Path
) -> None:
    url, _ = server
    with Client(project, actor="ada") as owner:
        secret = owner.keys.create(role="admin").secret
    remote = Client(url=url, key=secret)
    assert [key.actor for key in remote.keys.list()] == ["ada"]
    assert remote.runs.list() == []
    with pytest.raises(Unauthenticated):
        Client(url=url, key="esp_wrong").runs.list()


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/embeddings"), ("GET", "/v1/nothing"), ("POST", "/chat/completions"), ("POST", "/model/x/converse")],
)
def test_what_nobody_answers_is_an_error_in_json_and_no_page(
    server: tuple[str, subprocess.Popen[str]], method: str, path: str
) -> None:
    asked = urllib.request.Request(server[0] + path, b"{}" if method == "POST" else None, method=method)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(asked, timeout=240)
    assert caught.value.code == 404
    error = json.loads(caught.value.read())["error"]
    assert error["message"] == f"no route {method} {path}" and "base_url ends in /v1" in error["hint"]


def test_a_page_is_still_a_page(server: tuple[str, subprocess.Popen[str]]) -> None:
    pytest.importorskip("nicegui")
    with urllib.request.urlopen(server[0], timeout=240) as reply:
        assert "<title>Espalier</title>" in reply.read().decode()


def test_a_port_in_use_is_refused_with_what_to_do(server: tuple[str, subprocess.Popen[str]], project: Path) -> None:
    port = server[0].rsplit(":", 1)[1]
    command = [*_COMMAND, "--set", f"serve.port={port}", "-w", str(project)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == Conflict.exit_code
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    assert port in error["message"] and "serve.port=0" in error["hint"]


def test_it_stops_cleanly_when_told_to(server: tuple[str, subprocess.Popen[str]]) -> None:
    _, process = server
    process.send_signal(signal.SIGTERM)
    assert process.wait(240) == 0


def test_told_to_stop_twice_it_waits_for_nobody_and_tells_who_is_waiting(project: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ESPALIER_")}
    command = [*_COMMAND, "--cold", "--set", "serve.port=0", "-w", str(project)]
    with Client(project, actor="ada") as owner:
        secret = owner.keys.create().secret
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        host, port = json.loads(process.stdout.readline())["url"].removeprefix("http://").split(":")
        address = (host, int(port))
        with socket.create_connection(address, timeout=120) as waiting:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\n"
            waiting.sendall(f"{head}Expect: 100-continue\r\nContent-Length: 100\r\n\r\n".encode())
            assert waiting.recv(1000).startswith(b"HTTP/1.1 100")  # the rest of it is awaited, and never comes
            process.send_signal(signal.SIGINT)
            while _listens(address):
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            told = b"".join(iter(lambda: waiting.recv(1000), b""))
        _, errors = process.communicate(timeout=120)
    assert told.startswith(b"HTTP/1.1 503") and b"the server stopped" in told
    assert process.returncode == 0
    assert "Traceback" not in errors


def _listens(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=60).close()
    except OSError:
        return False
    return True
