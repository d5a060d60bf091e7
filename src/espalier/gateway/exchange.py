"""One HTTP request and its response on raw ASGI: headers, a bounded body, JSON or events, the client's leaving.

Spec: https://asgi.readthedocs.io/en/latest/specs/www.html. Knows no route and no model.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from espalier.core.errors import BudgetExceeded, EspalierError, InvalidInput, Unavailable
from espalier.core.ids import make_id
from espalier.wire.openai.failure import encode_error

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_BODY_TIMEOUT_S = 30.0
# Of a body that is too large so much is read and dropped, so that its sender hears why; then the connection is cut.
_MOST_DROPPED_BYTES = 256 << 20
_PIECE_BYTES = 1 << 18


def retry_headers(error: EspalierError) -> Headers:
    """When to ask again, where the error knows: whole seconds as HTTP has them (RFC 9110, 10.2.3), and milliseconds,
    which OpenAI's clients prefer."""
    if error.retry_after_s <= 0:
        return []
    return [
        (b"retry-after", b"%d" % math.ceil(error.retry_after_s)),
        (b"retry-after-ms", b"%d" % math.ceil(error.retry_after_s * 1000)),
    ]


class Exchange:
    """Every response carries `x-request-id`: the id that the ledger and `espalier trace` know it by."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, patience_s: float = 30.0) -> None:
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        self._receive = receive
        self._send = send
        self._patience_s = patience_s
        self._left = False  # the client takes nothing any more
        self._in_events = False  # a stream of events has begun and not ended
        self.request_id = make_id("req")
        self.status = 0  # 0 = nothing sent yet
        self.extra: Headers = []

    def bearer(self) -> str:
        """The API key as sent, or empty."""
        scheme, _, token = self._headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""

    async def body(self, most_bytes: int) -> bytes:
        """The whole body. Raises InvalidInput when it is larger, Unavailable when it does not come."""
        too_large = InvalidInput(f"the body is larger than {most_bytes} bytes", hint="send less text")
        said = self._headers.get(b"content-length", b"0")
        declared = int(said) if said.isdigit() else 0
        if declared > _MOST_DROPPED_BYTES:
            raise too_large
        parts, size, more = [], 0, True
        try:
            async with asyncio.timeout(_BODY_TIMEOUT_S):
                while more:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise Unavailable("the client left before its request was read")
                    part = message.get("body", b"")
                    size += len(part)
                    if size > _MOST_DROPPED_BYTES:
                        raise too_large
                    if size <= most_bytes:
                        parts.append(part)
                    more = message.get("more_body", False)
        except TimeoutError:
            raise Unavailable("the request's body did not arrive", hint="check the connection") from None
        if max(size, declared) > most_bytes:
            raise too_large
        return b"".join(parts)

    def header(self, name: bytes) -> str:
        """A header as sent, or empty; `name` in lower case."""
        return self._headers.get(name, b"").decode("latin-1")

    async def chunks(self, most_bytes: int) -> AsyncGenerator[bytes, None]:
        """The body as it comes. Raises InvalidInput when it is larger, Unavailable when it stops coming."""
        size, more = 0, True
        while more:
            try:
                async with asyncio.timeout(_BODY_TIMEOUT_S):
                    message = await self._receive()
            except TimeoutError:
                raise Unavailable("the request's body stopped coming", hint="check the connection") from None
            if message["type"] == "http.disconnect":
                raise Unavailable("the client left before its request was read")
            size += len(message.get("body", b""))
            if size > most_bytes:
                raise InvalidInput(f"the body is larger than {most_bytes} bytes", hint="send it in several")
            yield message.get("body", b"")
            more = message.get("more_body", False)

    async def wait_for_leaving(self) -> None:
        """Return when the client has closed the connection. Only after the body was read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def send_json(self, status: int, value: Any) -> None:
        await self.send_bytes(status, json.dumps(value).encode(), b"application/json")

    async def send_bytes(self, status: int, body: bytes, kind: bytes = b"application/json") -> None:
        await self._start(status, [(b"content-type", kind), (b"content-length", b"%d" % len(body))])
        await self._send({"type": "http.response.body", "body": body})

    async def send_file(self, path: Path, kind: bytes) -> None:
        """A file's bytes, a piece at a time. Raises Unavailable when the client takes nothing for too long."""
        await self._start(200, [(b"content-type", kind), (b"content-length", b"%d" % path.stat().st_size)])
        with path.open("rb") as stream:
            while piece := await asyncio.to_thread(stream.read, _PIECE_BYTES):
                await self._send_piece(piece, last=False)
        await self._send_piece(b"", last=True)

    async def send_error(self, error: EspalierError) -> None:
        """As a response where none was begun, else as the stream's last event."""
        if self._left:
            return
        status, body = encode_error(error)
        if self.status:
            await self.send_event(b"data: " + body + b"\n\n", last=True)
            return
        # OpenAI's clients retry a 429 unless told otherwise, and a spent budget does not fill up again by itself.
        if isinstance(error, BudgetExceeded):
            self.extra.append((b"x-should-retry", b"false"))
        self.extra += retry_headers(error)
        await self.send_bytes(status, body)

    async def cut_off(self, error: EspalierError) -> None:
        """Say why the response ends here, where that can be said: before it begins, or in a stream of events."""
        if not self.status or self._in_events:
            await self.send_error(error)

    async def start_events(self) -> None:
        """Begin a stream of server-sent events that no proxy may hold back."""
        self._in_events = True
        await self._start(
            200, [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        )

    async def send_event(self, event: bytes, *, last: bool = False) -> None:
        """Waits while the client is behind. Raises Unavailable when it takes nothing for too long."""
        await self._send_piece(event, last=last)

    async def _send_piece(self, piece: bytes, *, last: bool) -> None:
        self._in_events = self._in_events and not last
        try:
            async with asyncio.timeout(self._patience_s):
                await self._send({"type": "http.response.body", "body": piece, "more_body": not last})
        except TimeoutError:
            self._left = True
            raise Unavailable(f"the client has read nothing for {self._patience_s:g} s") from None

    async def _start(self, status: int, headers: Headers) -> None:
        self.status = status
        own = [*headers, (b"x-request-id", self.request_id.encode()), *self.extra]
        await self._send({"type": "http.response.start", "status": status, "headers": own})
