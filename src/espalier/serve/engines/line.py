"""`Line`: HTTP to one server, from any thread and any event loop, over one session on a thread and loop of its own.

An aiohttp session belongs to the loop it was made on, while an engine is started and stopped from threads and asked on
the server's loop: so the session lives on neither, and every request is handed over. Knows no model and no vendor.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp

from espalier import __version__
from espalier.core.errors import EspalierError, Unavailable
from espalier.wire.retryafter import read_wait_s

Result = TypeVar("Result")

_CONNECT_S = 10.0
_CALL_S = 120.0  # a call that is no stream; loading a large adapter takes seconds
_LONGEST_LINE_BYTES = 1 << 20
_LARGEST_REPLY_BYTES = 16 << 20
_KEEPALIVE_S = 4.0  # below the five seconds after which uvicorn, under most of these servers, closes an idle one


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server said. `retry_after_s` is 0 where it named no time to wait."""

    status: int
    content: bytes
    retry_after_s: float = 0.0


class Refused(Exception):
    """A stream that did not begin; what it means is the engine's to say."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(f"status {reply.status}")
        self.reply = reply


class Hung(Exception):
    """The line was closed while a stream was open."""


class Line:
    """`open` before use; `close` ends open streams with `Hung`, calls with Unavailable, and `open` may follow again.

    idle_s: how long the server may say nothing, within a stream or before it.
    """

    def __init__(self, url: str, *, key: str = "", idle_s: float = 600.0, connections: int = 512) -> None:
        self.url = url.rstrip("/")
        self._key = key
        self._idle_s = idle_s
        self._connections = connections
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._session: aiohttp.ClientSession | None = None
        self._lock = threading.Lock()  # whatever is handed over comes before the end, or not at all

    @property
    def is_open(self) -> bool:
        return self._loop is not None

    def open(self) -> None:
        """Begin; opens no connection yet."""
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=loop.run_forever, name="espalier-line", daemon=True)
                self._thread.start()
                self._session = asyncio.run_coroutine_threadsafe(self._begin(), loop).result()
                self._loop = loop

    def close(self) -> None:
        """Hang up: open streams and calls end, connections close, the thread ends."""
        with self._lock:
            loop, thread, session = self._loop, self._thread, self._session
            if loop is None or thread is None:
                return
            self._loop = self._thread = self._session = None
            ending = asyncio.run_coroutine_threadsafe(_end(session), loop)
        ending.result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def call(self, method: str, path: str, body: Any = None, *, timeout_s: float = _CALL_S) -> Reply:
        """One request and its whole reply, whatever its status. Blocks; call it from any thread but an event loop's.

        Raises Unavailable where no reply comes.
        """
        try:
            return self._run(self._call(method, path, body, timeout_s)).result()
        except CancelledError:
            raise _stopping() from None
        except (aiohttp.ClientError, TimeoutError, OSError) as lost:
            raise self._lost(lost) from None

    async def stream(self, path: str, body: Any) -> AsyncGenerator[bytes, None]:
        """The lines of a streamed reply to a POST, each without its end. Closing the iterator closes the connection.

        Raises Refused for any status but 200, Hung when the line is closed meanwhile, Unavailable when the connection
        is lost.
        """
        loop = asyncio.get_running_loop()
        heard: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()

        def tell(item: bytes | Exception | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody is left to hear it
                loop.call_soon_threadsafe(heard.put_nowait, item)

        pumping = self._run(self._pump(path, body, tell))
        try:
            while (item := await heard.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            pumping.cancel()

    def _run(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        with self._lock:
            if self._loop is not None:
                return asyncio.run_coroutine_threadsafe(work, self._loop)
        work.close()
        raise Unavailable("the engine is not running", hint="ask again when it is, or ask another process")

    async def _begin(self) -> aiohttp.ClientSession:
        headers = {"Content-Type": "application/json", "User-Agent": f"espalier/{__version__}"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=_KEEPALIVE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=self._idle_s),
        )

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise _stopping()
        return self._session

    async def _call(self, method: str, path: str, body: Any, timeout_s: float) -> Reply:
        async with asyncio.timeout(timeout_s):
            data = None if body is None else json.dumps(body).encode()
            async with self._client().request(method, self.url + path, data=data, allow_redirects=False) as reply:
                return await _read(reply)

    async def _pump(self, path: str, body: Any, tell: Callable[[bytes | Exception | None], None]) -> None:
        ending: Exception | None = None
        try:
            data = json.dumps(body).encode()
            async with self._client().post(self.url + path, data=data, allow_redirects=False) as reply:
                if reply.status != 200:
                    raise Refused(await _read(reply))
                try:
                    async for line in _split(reply.content.iter_any()):
                        tell(line)
                finally:
                    reply.close()  # never back into the pool half read: an open connection is a running request
        except asyncio.CancelledError:
            ending = Hung()
            raise
        except (aiohttp.ClientError, TimeoutError, OSError) as lost:
            ending = self._lost(lost)
        except (Refused, EspalierError) as error:
            ending = error
        finally:
            tell(ending)

    def _lost(self, error: Exception) -> Unavailable:
        told = str(error) or type(error).__name__
        if self._key:
            told = told.replace(self._key, "***")
        return Unavailable(f"no answer from {self.url}: {told}"[:300], hint="is the server there?")


async def _end(session: aiohttp.ClientSession | None) -> None:
    """End what others still wait for: on a loop that has stopped they would wait for ever."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    if session is not None:
        await session.close()


def _stopping() -> Unavailable:
    return Unavailable("the engine is stopping", hint="ask again when it runs, or ask another process")


async def _read(reply: aiohttp.ClientResponse) -> Reply:
    content = bytearray()
    async for chunk in reply.content.iter_any():
        content += chunk
        if len(content) > _LARGEST_REPLY_BYTES:
            raise OSError(f"an answer of more than {_LARGEST_REPLY_BYTES >> 20} MiB")
    return Reply(reply.status, bytes(content), read_wait_s(reply.headers.get("Retry-After", "")))


async def _split(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Lines out of chunks cut anywhere; the last need not be ended."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.rstrip(b"\r")
        if len(rest) > _LONGEST_LINE_BYTES:
            raise OSError(f"a line of more than {_LONGEST_LINE_BYTES >> 20} MiB")
    if rest:
        yield rest
