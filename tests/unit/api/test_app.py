"""The HTTP face at its edges: what is refused before an operation is called, and what a stream does when it is left."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from openapi_spec_validator import validate
from pydantic import Field

from espalier.api.app import build_api
from espalier.core import operations
from espalier.core.errors import Unauthenticated
from espalier.core.events import IDLE, Event
from espalier.core.operations import load_operations, operation
from espalier.core.types import Principal, Spec
from espalier.services.context import Context, open_context
from espalier.store.workspace import init_workspace


class Wait(Spec):
    """How long."""

    steps: int = Field(3, description="how many")


left = threading.Event()


def wait(context: Context, request: Wait) -> Iterator[Event]:
    """Wait."""
    try:
        yield Event("first")
        while not left.wait(0.01):
            yield Event(IDLE)
    finally:
        left.set()


def stumble(context: Context, request: Wait) -> Wait:
    """Stumble."""
    raise ZeroDivisionError("secret detail")


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FastAPI]:
    init_workspace(tmp_path)
    load_operations()
    before = dict(operations._TABLE)
    operation("test.wait", "POST /v1/test/wait", shape="stream")(wait)
    operation("test.stumble", "POST /v1/test/stumble")(stumble)
    context = open_context(tmp_path, actor="ada")

    def authenticate(key: str | None) -> Principal:
        if key != "secret":
            raise Unauthenticated("no API key", hint="send one")
        return Principal(actor="ada", role="admin")

    yield build_api(lambda: context, authenticate)
    context.close()
    operations._TABLE.clear()
    operations._TABLE.update(before)


def send(
    api: FastAPI,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    headers: dict[str, str] | None = None,
    leave_after: int = 10_000,
    client: str = "127.0.0.1",
) -> tuple[int, bytes]:
    """One request through ASGI itself; with `leave_after`, the client hangs up after so many body messages."""
    sent: list[dict[str, Any]] = []
    given = {"authorization": "Bearer secret", "content-type": "application/json", **(headers or {})}
    where, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "path": where,
        "raw_path": where.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "scheme": "http",
        "headers": [(key.lower().encode(), value.encode()) for key, value in given.items()],
        "client": (client, 1),
        "server": ("127.0.0.1", 80),
    }

    async def run() -> None:
        asked = False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": body, "more_body": False}
            await asyncio.sleep(3600)
            raise AssertionError

        async def reply(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.body" and len(sent) > leave_after:
                raise OSError("the client has gone")
            sent.append(message)

        await api(scope, receive, reply)  # type: ignore[arg-type]

    try:
        asyncio.run(run())
    except Exception:
        if leave_after == 10_000 and not sent:
            raise
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


def error_of(body: bytes) -> dict[str, str]:
    found: dict[str, str] = json.loads(body)["error"]
    return found


def test_a_body_that_is_not_json_is_refused(api: FastAPI) -> None:
    status, body = send(api, "POST", "/v1/test/wait", b"{]")
    assert (status, error_of(body)["code"]) == (400, "invalid_input")
    status, body = send(api, "POST", "/v1/test/wait", b"[1]")
    assert status == 400 and "no JSON object" in error_of(body)["message"]


def test_a_body_a_web_page_could_send_unasked_is_refused(api: FastAPI) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        status, body = send(api, "POST", "/v1/test/stumble", b"{}", headers={"content-type": kind})
        assert status == 400 and "Content-Type: application/json" in error_of(body)["hint"]


def test_a_huge_body_is_refused(api: FastAPI) -> None:
    status, body = send(api, "POST", "/v1/test/wait", b" " * (9 << 20))
    assert status == 400 and "larger than 8 MiB" in error_of(body)["message"]


def test_without_a_key_nothing_is_answered(api: FastAPI) -> None:
    for header in ("", "Basic c2VjcmV0", "Bearer ", "Bearer wrong"):
        status, body = send(api, "GET", "/v1/runs", headers={"authorization": header})
        assert (status, error_of(body)["code"]) == (401, "unauthenticated")


def test_another_machine_may_not_name_an_actor_even_with_an_admins_key(api: FastAPI) -> None:
    headers = {"x-espalier-actor": "bo"}
    assert send(api, "GET", "/v1/runs", headers=headers)[0] == 200
    status, body = send(api, "GET", "/v1/runs", headers=headers, client="192.0.2.7")
    assert (status, error_of(body)["code"]) == (403, "permission_denied")


def test_an_unknown_path_is_not_found_in_our_shape(api: FastAPI) -> None:
    status, body = send(api, "GET", "/v1/nothing")
    assert (status, error_of(body)["code"]) == (404, "not_found")


def test_an_unknown_query_field_is_refused(api: FastAPI) -> None:
    status, body = send(api, "GET", "/v1/runs?limt=3")
    assert status == 400 and "did you mean `limit`" in error_of(body)["hint"]


def test_a_bug_is_reported_without_its_details(api: FastAPI) -> None:
    status, body = send(api, "POST", "/v1/test/stumble", b"{}")
    assert (status, error_of(body)["code"]) == (500, "internal")
    assert b"secret detail" not in body


def test_a_client_that_leaves_a_stream_closes_it(api: FastAPI) -> None:
    left.clear()
    status, body = send(api, "POST", "/v1/test/wait", b"{}", leave_after=3)
    assert status == 200 and b'"kind": "first"' in body and b": idle\n\n" in body
    assert left.wait(60)


def test_the_openapi_document_is_valid_and_names_every_operation(api: FastAPI) -> None:
    status, body = send(api, "GET", "/openapi.json")
    document = json.loads(body)
    assert status == 200
    validate(document)
    named = {method["operationId"] for path in document["paths"].values() for method in path.values()}
    assert named == set(load_operations())
    cancel = document["paths"]["/v1/jobs/{id}/cancel"]["post"]
    assert [parameter["name"] for parameter in cancel["parameters"]] == ["id"]
