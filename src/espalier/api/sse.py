"""Server-sent events from a blocking iterator (https://html.spec.whatwg.org/multipage/server-sent-events.html).

    data: {...}\\n\\n          one item        event: error / data: {...}      the error that ended it
    : idle\\n\\n               nothing new     event: end / data: {}           it ended as it should

An error before the first item is an ordinary error response with its own status. A client that leaves closes the
iterator.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from weakref import WeakKeyDictionary

from anyio import CapacityLimiter, to_thread
from pydantic import TypeAdapter
from starlette.responses import Response, StreamingResponse

from espalier.core.errors import EspalierError
from espalier.core.events import IDLE, Event

_PATIENCE_S = 1.0  # how long the response waits for a first item, so that an early error keeps its status
_THREADS = 256  # streams at once; each holds a thread while it waits, and none of those the answers use
_DONE = object()
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # the second: nginx must not hold events back


async def stream_response(items: Iterator[Any]) -> Response:
    """The response that sends `items` as they come. Raises what the iterator raises before its first item."""
    limiter = _limiter()
    first = asyncio.ensure_future(_advance(items, limiter))
    done, _ = await asyncio.wait({first}, timeout=_PATIENCE_S)
    if done:
        first.result()
    return StreamingResponse(_send(items, first, limiter), media_type="text/event-stream", headers=_HEADERS)


async def _send(items: Iterator[Any], ahead: asyncio.Future[Any], limiter: CapacityLimiter) -> AsyncIterator[bytes]:
    try:
        while (item := await asyncio.shield(ahead)) is not _DONE:
            yield _encode(item)
            ahead = asyncio.ensure_future(_advance(items, limiter))
        yield b"event: end\ndata: {}\n\n"
    except EspalierError as error:
        yield f"event: error\ndata: {json.dumps(error.to_json())}\n\n".encode()
    finally:
        ahead.add_done_callback(lambda done: _close(items, done))


async def _advance(items: Iterator[Any], limiter: CapacityLimiter) -> Any:
    return await to_thread.run_sync(next, items, _DONE, limiter=limiter)


def _close(items: Iterator[Any], done: asyncio.Future[Any]) -> None:
    """Close the iterator once no thread is inside it; an error of an item nobody waits for any more is dropped."""
    if not done.cancelled():
        done.exception()
    close = getattr(items, "close", None)
    if close is not None:
        close()


def _encode(item: Any) -> bytes:
    if isinstance(item, Event):
        return b": idle\n\n" if item.kind == IDLE else f"data: {item.to_json()}\n\n".encode()
    return b"data: " + TypeAdapter(type(item)).dump_json(item) + b"\n\n"


def _limiter() -> CapacityLimiter:
    """The running loop's own: a limiter belongs to one loop."""
    return _LIMITERS.setdefault(asyncio.get_running_loop(), CapacityLimiter(_THREADS))


_LIMITERS: WeakKeyDictionary[asyncio.AbstractEventLoop, CapacityLimiter] = WeakKeyDictionary()
