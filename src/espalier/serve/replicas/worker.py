"""`python -m espalier.serve.replicas.worker FD`: one replica, an engine that is spoken to over the socket FD.

It ends when told to, when the other end is gone, or when its engine has ended by itself. Knows no other replica.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from espalier.core.config import ServeConfig
from espalier.core.ports import Delta, ReservedShare
from espalier.serve.replicas.frames import Frame, FrameLine, decode_request, encode_delta, encode_error
from espalier.serve.warming import warm

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from espalier.serve.engine import Engine

_BROKEN = 3  # exit status: the engine ended by itself


class Worker:
    """Serves one line until it is lost."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._line = FrameLine(self._take, self._lose)
        self._answers: dict[int, asyncio.Task[None]] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._lost = asyncio.Event()

    async def run(self, end: socket.socket) -> None:
        await asyncio.get_running_loop().create_unix_connection(lambda: self._line, sock=end)
        await self._lost.wait()
        if self._engine is not None:
            await asyncio.to_thread(self._engine.stop)

    def _take(self, frame: Frame) -> None:
        operation, number = frame["op"], frame["id"]
        if operation == "cancel":
            answer = self._answers.pop(number, None)
            if answer is not None:
                answer.cancel()
        elif operation == "ask":
            self._answers[number] = asyncio.create_task(self._answer(number, frame["request"]))
        else:
            work = self._open(frame) if operation == "open" else self._call(frame["name"], frame["args"])
            call = asyncio.create_task(self._reply(number, work))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    def _lose(self) -> None:
        self._lost.set()

    async def _answer(self, number: int, said: Frame) -> None:
        try:
            engine = cast("Engine", self._engine)
            stream = cast("AsyncGenerator[Delta, None]", engine.stream(decode_request(said)))
            async with aclosing(stream) as deltas:
                async for delta in deltas:
                    self._line.send({"id": number, "delta": encode_delta(delta)})
            self._line.send({"id": number, "end": True})
        except Exception as error:  # noqa: BLE001 - the boundary: the asker is told
            self._line.send({"id": number, "error": encode_error(error)})
        finally:
            self._answers.pop(number, None)

    async def _reply(self, number: int, work: Any) -> None:
        try:
            self._line.send({"id": number, "value": await work})
        except Exception as error:  # noqa: BLE001 - the boundary: the asker is told
            self._line.send({"id": number, "error": encode_error(error)})

    async def _open(self, frame: Frame) -> Frame:
        """Load base and adapters, and answer once, so that a replica which says it is there is warm."""

        def load() -> Engine:
            from espalier.nn.base import load_base
            from espalier.serve.engine import Engine

            config = ServeConfig.model_validate(frame["serve"])
            loaded = load_base(frame["place"], threads=config.threads, fetch=False)
            return Engine(replace(loaded, spec=frame["base"]), config)

        engine = await asyncio.to_thread(load)
        self._engine = engine.start()
        for digest, folder in frame["adapters"]:
            await asyncio.to_thread(engine.load_adapter, digest, Path(folder))
        await warm(engine, frame["base"])
        return {"memory_bytes": engine.memory_bytes()}

    async def _call(self, name: str, arguments: list[Any]) -> Any:
        if self._engine is None:
            raise RuntimeError("not opened")
        return await asyncio.to_thread(_CALLS[name], self._engine, *arguments)


def _tell_state(engine: Engine) -> Frame:
    if not engine.answering:
        os._exit(_BROKEN)  # whoever watches starts another; nothing here is worth saving
    return asdict(engine.load())


def _hold(engine: Engine, shares: list[list[Any]]) -> None:
    engine.hold([ReservedShare(*share) for share in shares])


_CALLS: dict[str, Callable[..., Any]] = {
    "state": _tell_state,
    "memory_bytes": lambda engine: engine.memory_bytes(),
    "count_prompt_tokens": lambda engine, said: engine.count_prompt_tokens(decode_request(said)),
    "load_adapter": lambda engine, digest, folder: engine.load_adapter(digest, Path(folder)),
    "unload_adapter": lambda engine, digest: engine.unload_adapter(digest),
    "hold": _hold,
}


def main() -> None:
    """Serve the socket whose number is the first argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to answer; it then ends us in good order
    asyncio.run(Worker().run(socket.socket(fileno=int(sys.argv[1]))))
    os._exit(0)  # a thread that still waits for an answer nobody reads must not keep the process


if __name__ == "__main__":
    main()
