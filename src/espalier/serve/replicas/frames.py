"""What a server and its replicas say to each other, and how it lies on the wire between them. Imports no torch.

The wire is a pair of connected Unix sockets without a name: nothing else on the machine can open them, and the kernel
closes a dead process' end. A frame is its length (4 bytes, big-endian) and a JSON object; no pickle, no secret.

    server -> replica   {"op": "open", ...}               once, first
                        {"op": "call", "id", "name", "args"}
                        {"op": "ask", "id", "request"}    {"op": "cancel", "id"}
    replica -> server   {"id", "value"} | {"id", "error"}        the end of a call
                        {"id", "delta"} ... {"id", "end": true} | {"id", "error"}
"""

from __future__ import annotations

import asyncio
import functools
import json
import struct
from collections.abc import Callable, Mapping
from typing import Any, cast

import orjson
from pydantic import TypeAdapter

from espalier.core.errors import EspalierError, InvalidInput
from espalier.core.ports import ChatRequest, Delta
from espalier.core.types import TokenLogprob, ToolCall, Usage

Frame = dict[str, Any]

_LENGTH = struct.Struct(">I")
_LONGEST_BYTES = 64 << 20  # a longer one is no message of ours


class FrameLine(asyncio.Protocol):
    """One end of the wire, on an event loop. `send` may be called on that loop only; what it is given goes out soon.

    on_lost is called once, when the other end is gone or has said what is no frame.
    """

    def __init__(self, on_frame: Callable[[Frame], None], on_lost: Callable[[], None]) -> None:
        self._on_frame, self._on_lost = on_frame, on_lost
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._outgoing: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._on_lost()

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._received)
            if length > _LONGEST_BYTES:
                self.close()
                return
            end = _LENGTH.size + length
            if len(self._received) < end:
                return
            body = bytes(self._received[_LENGTH.size : end])
            del self._received[:end]
            self._on_frame(_read(body))

    def send(self, frame: Frame) -> None:
        """Frames of one turn of the loop, such as a step's tokens, leave in one write; on a lost line, none.

        Raises InvalidInput for one that is too long: the other end would take it for noise and hang up.
        """
        if self._transport is None:
            return
        body = _write(frame)
        if len(body) > _LONGEST_BYTES:
            raise InvalidInput(f"a request of {len(body) >> 20} MiB", hint=f"send less than {_LONGEST_BYTES >> 20} MiB")
        if not self._outgoing:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outgoing += (_LENGTH.pack(len(body)), body)

    def close(self) -> None:
        """Send what is left, and end the line."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if self._transport is not None and outgoing:
            self._transport.write(b"".join(outgoing))


def encode_request(request: ChatRequest) -> Frame:
    """Every word of it, as JSON has them."""
    return cast("Frame", _requests().dump_python(request, mode="json"))


def decode_request(said: Mapping[str, Any]) -> ChatRequest:
    """What `encode_request` was given. Raises ValidationError."""
    return _requests().validate_python(said)


def encode_delta(delta: Delta) -> Frame:
    """Only what differs from an empty one: there is one for every token."""
    said: Frame = {"t": delta.text}
    if delta.finish_reason is not None:
        said["f"] = delta.finish_reason
    if delta.usage is not None:
        said["u"] = [delta.usage.prompt_tokens, delta.usage.completion_tokens, delta.usage.cached_tokens]
    if delta.index:
        said["i"] = delta.index
    if delta.logprobs:
        said["l"] = [_encode_logprob(each) for each in delta.logprobs]
    if delta.tool_calls:
        said["c"] = [[call.id, call.name, call.arguments] for call in delta.tool_calls]
    if delta.adapter is not None:
        said["a"] = delta.adapter
    return said


def decode_delta(said: Mapping[str, Any]) -> Delta:
    """What `encode_delta` was given."""
    used = said.get("u")
    return Delta(
        said["t"],
        said.get("f"),
        Usage(prompt_tokens=used[0], completion_tokens=used[1], cached_tokens=used[2]) if used else None,
        said.get("i", 0),
        tuple(_decode_logprob(each) for each in said.get("l", ())),
        tuple(ToolCall(*call) for call in said.get("c", ())),
        said.get("a"),
    )


def encode_error(error: Exception) -> Frame:
    """An error of ours as it is; of any other, only what it is called, for its words may hold a user's."""
    ours = error if isinstance(error, EspalierError) else EspalierError(f"the engine failed ({type(error).__name__})")
    return ours.to_json()


def _write(frame: Frame) -> bytes:
    try:
        return orjson.dumps(frame)
    except TypeError:  # an integer of more than 64 bits, as a tool's schema may hold; it arrives as a float
        return json.dumps(frame).encode()


def _read(body: bytes) -> Frame:
    try:
        return cast("Frame", orjson.loads(body))
    except orjson.JSONDecodeError:  # no number, or half a surrogate pair: one odd word must not cost a replica
        return cast("Frame", json.loads(body))


def _encode_logprob(token: TokenLogprob) -> list[Any]:
    # A token's bytes need not be text: Latin-1 gives each byte a character of its own.
    return [token.id, token.text.decode("latin-1"), token.logprob, [_encode_logprob(each) for each in token.top]]


def _decode_logprob(said: list[Any]) -> TokenLogprob:
    return TokenLogprob(said[0], said[1].encode("latin-1"), said[2], tuple(_decode_logprob(each) for each in said[3]))


@functools.cache
def _requests() -> TypeAdapter[ChatRequest]:
    return TypeAdapter(ChatRequest)
