"""The client's transport over HTTP: standard library only, one connection a call, server-sent events for streams.

Errors come back as the classes they were raised as; a server that cannot be reached is NotFound with what to start.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from typing import Any, get_args
from urllib.parse import quote, urlencode, urlsplit

from pydantic import BaseModel, TypeAdapter

from espalier.core.errors import EspalierError, InvalidInput, NotFound, from_json
from espalier.core.events import Event
from espalier.core.operations import Operation
from espalier.core.types import Run


class HttpTransport:
    """Calls a running `espalier serve` at `url` with an API key; `actor` is honoured for an admin on loopback only."""

    def __init__(self, url: str, *, key: str = "", actor: str = "", timeout_s: float = 600.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidInput(f"{url!r} is not a server's URL", hint="write http://HOST:PORT")
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname, parts.port
        self._prefix = parts.path.rstrip("/")
        self._timeout_s = timeout_s
        self._headers = {"Content-Type": "application/json", "User-Agent": "espalier-sdk"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        if actor:
            self._headers["X-Espalier-Actor"] = actor

    def perform(self, operation: Operation, request: BaseModel) -> Any:
        """Raises the error the server answered with, or NotFound when there is no server."""
        method, path, body = _address(operation, request)
        response = self._send(method, self._prefix + path, body)
        if response.status >= 400:
            raise _error_of(response)
        if operation.shape == "stream":
            (kind,) = get_args(operation.response)
            return _read_stream(response, kind)
        with response:
            return TypeAdapter(Run if operation.shape == "job" else operation.response).validate_json(response.read())

    def work(self, run: Run, on_event: Callable[[Event], None]) -> Run | None:
        """The server's workers do it."""
        return None

    def detach(self, run: Run) -> None:
        """The server's workers may take it from the first."""

    def close(self) -> None:
        """Nothing stays open between calls."""

    def _send(self, method: str, path: str, body: bytes | None) -> http.client.HTTPResponse:
        connect = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = connect(self._host, self._port, timeout=self._timeout_s)
        # With this header the response owns the socket and closes it when it has been read or is closed.
        try:
            connection.request(method, path, body, {**self._headers, "Connection": "close"})
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise NotFound(
                f"no answer from {self._host}:{connection.port}: {error}", hint="start it: `espalier serve`"
            ) from error


def _address(operation: Operation, request: BaseModel) -> tuple[str, str, bytes | None]:
    """(method, path with its parameters filled in, body) of a call."""
    method, path = operation.route.split(" ", 1)
    fields = request.model_dump(mode="json", exclude_unset=True)
    for name in list(fields):
        if f"{{{name}}}" in path:
            path = path.replace(f"{{{name}}}", quote(str(fields.pop(name)), safe=""))
    if method in ("GET", "DELETE"):
        query = [(name, _query_text(item)) for name, value in fields.items() for item in _each(value)]
        return method, f"{path}?{urlencode(query)}" if query else path, None
    return method, path, json.dumps(fields).encode()


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _query_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _error_of(response: http.client.HTTPResponse) -> EspalierError:
    with response:
        text = response.read()
    try:
        return from_json(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return EspalierError(f"HTTP {response.status}: {text[:200].decode(errors='replace')}")


def _decoder(kind: Any) -> Callable[[str], Any]:
    """How a stream's items are read: an Event's data lie flat beside its kind, anything else is its type's JSON."""
    kinds = get_args(kind) or (kind,)
    adapter = TypeAdapter(kind)
    if Event not in kinds:
        return adapter.validate_json
    if len(kinds) == 1:
        return Event.from_json
    return lambda text: Event.from_json(text) if "at_ms" in json.loads(text) else adapter.validate_json(text)


def _read_stream(response: http.client.HTTPResponse, kind: Any) -> Iterator[Any]:
    """The items of a server-sent event stream; raises the error an `error` event carries. Closing it hangs up."""
    decode = _decoder(kind)
    with response:
        name = "message"
        for raw in response:
            line = raw.decode().rstrip("\r\n")
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                text = line.removeprefix("data: ")
                if name == "error":
                    raise from_json(json.loads(text))
                if name == "end":
                    return
                yield decode(text)
            elif not line:
                name = "message"
        raise EspalierError("the stream broke off before its end", hint="ask again; a run can be followed again")
