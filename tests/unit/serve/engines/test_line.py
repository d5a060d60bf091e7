"""HTTP to a server from any thread and loop: lines whole, the connection closed when nobody reads, words for a loss."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.core.errors import Unavailable
from espalier.serve.engines.line import Hung, Line, Refused, _split
from espalier.wire.retryafter import read_wait_s


class Server:
    """On a loop and thread of its own; `left` counts streams whose reader went."""

    def __init__(self) -> None:
        self.left = 0
        self.silent = threading.Event()  # somebody was never answered
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._runner = self._loop.run_until_complete(self._start())
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    async def _start(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/lines", self._lines)
        app.router.add_post("/forever", self._forever)
        app.router.add_post("/busy", self._busy)
        app.router.add_post("/silent", self._be_silent)
        app.router.add_post("/torn", self._torn)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    async def _lines(self, request: web.Request) -> web.Response:
        return web.Response(body=await request.read() + b"\r\n\r\nlast", headers={"X-Key": "-"})

    async def _forever(self, request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse()
        await reply.prepare(request)
        try:
            while True:
                await reply.write(b"again\n")
                await asyncio.sleep(0.005)
        except (ConnectionError, asyncio.CancelledError):
            self.left += 1
            raise

    async def _be_silent(self, request: web.Request) -> web.Response:
        self.silent.set()
        await asyncio.sleep(3600)
        return web.Response()

    async def _busy(self, request: web.Request) -> web.Response:
        return web.Response(status=503, text="busy", headers={"Retry-After": "3"})

    async def _torn(self, request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse(headers={"Content-Length": "100"})
        await reply.prepare(request)
        await reply.write(b"one\n")
        assert request.transport is not None
        request.transport.abort()
        return reply

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def line(server: Server) -> Iterator[Line]:
    line = Line(server.url, key="secret")
    line.open()
    yield line
    line.close()


async def _read(line: Line, path: str, most: int = 1000) -> list[bytes]:
    found: list[bytes] = []
    async with aclosing(line.stream(path, {"a": 1})) as lines:
        async for each in lines:
            found.append(each)
            if len(found) == most:
                break
    return found


def test_one_line_serves_many_loops_and_threads_at_once(line: Line) -> None:
    results: list[list[bytes]] = []
    threads = [threading.Thread(target=lambda: results.append(asyncio.run(_read(line, "/lines")))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert line.call("POST", "/lines", [1]).content == b"[1]\r\n\r\nlast"
    for thread in threads:
        thread.join()
    assert results == [[b'{"a": 1}', b"", b"last"]] * 8


def test_leaving_a_stream_closes_its_connection(line: Line, server: Server) -> None:
    before = server.left

    async def leave_and_wait() -> None:
        assert await _read(line, "/forever", most=2) == [b"again"] * 2
        for _ in range(6000):
            if server.left > before:
                return
            await asyncio.sleep(0.01)

    asyncio.run(leave_and_wait())
    assert server.left == before + 1


def test_closing_the_line_ends_open_streams_and_it_may_be_opened_again(server: Server) -> None:
    line = Line(server.url)
    line.open()

    async def close_in_the_middle() -> None:
        async with aclosing(line.stream("/forever", None)) as lines:
            await anext(lines)
            await asyncio.to_thread(line.close)
            async for _ in lines:
                pass

    with pytest.raises(Hung):
        asyncio.run(close_in_the_middle())
    with pytest.raises(Unavailable, match="not running"):
        line.call("POST", "/lines")
    line.open()
    assert line.call("POST", "/lines", 1).status == 200
    line.close()


def test_who_calls_while_the_line_is_closed_is_told_and_waits_for_nothing(server: Server) -> None:
    def call_until_refused(line: Line) -> None:
        with pytest.raises(Unavailable):
            while True:
                line.call("POST", "/lines", 1)

    for _ in range(10):
        line = Line(server.url)
        line.open()
        callers = [threading.Thread(target=call_until_refused, args=(line,), daemon=True) for _ in range(4)]
        for caller in callers:
            caller.start()
        line.close()
        for caller in callers:
            caller.join(60)
        assert not any(caller.is_alive() for caller in callers)


def test_a_call_under_way_ends_when_the_line_is_closed(server: Server) -> None:
    line, said = Line(server.url), list[Exception]()
    line.open()

    def call() -> None:
        try:
            line.call("POST", "/silent")
        except Unavailable as error:
            said.append(error)

    caller = threading.Thread(target=call, daemon=True)
    caller.start()
    assert server.silent.wait(60)
    line.close()
    caller.join(60)
    assert [type(error) for error in said] == [Unavailable]


def test_a_stream_that_does_not_begin_hands_over_what_was_said(line: Line) -> None:
    with pytest.raises(Refused) as caught:
        asyncio.run(_read(line, "/busy"))
    assert (caught.value.reply.status, caught.value.reply.content, caught.value.reply.retry_after_s) == (
        503,
        b"busy",
        3,
    )


def test_a_connection_that_breaks_is_unavailable_and_says_no_key(line: Line) -> None:
    with pytest.raises(Unavailable) as caught:
        asyncio.run(_read(line, "/torn"))
    assert "secret" not in str(caught.value)


def test_nobody_there_is_unavailable(server: Server) -> None:
    line = Line("http://127.0.0.1:1")
    line.open()
    try:
        with pytest.raises(Unavailable, match="no answer"):
            line.call("GET", "/health")
    finally:
        line.close()


@settings(max_examples=50)
@given(
    st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line and b"\r" not in line), min_size=1), st.data()
)
def test_lines_are_whole_wherever_they_are_cut(lines: list[bytes], data: st.DataObject) -> None:
    whole = b"\n".join([*lines, b"end"])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    chunks = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]

    async def split() -> list[bytes]:
        async def give() -> AsyncIterator[bytes]:
            for chunk in chunks:
                yield chunk

        return [line async for line in _split(give())]

    assert asyncio.run(split()) == [*lines, b"end"]


@pytest.mark.parametrize(("text", "seconds"), [("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("soon", 0.0), ("", 0.0)])
def test_a_time_to_wait_is_read_or_is_none(text: str, seconds: float) -> None:
    assert read_wait_s(text) == seconds


def test_a_time_to_wait_may_be_a_date() -> None:
    assert read_wait_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert read_wait_s("Wed, 21 Oct 2099 07:28:00 GMT") > 1e9
