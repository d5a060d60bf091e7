"""`Replica`: one worker process as the server sees it. Every method belongs to the event loop that started it.

Knows no other replica, and not what becomes of the requests it had when it died: that is told through `on_lost`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from espalier.core.errors import EspalierError, Unavailable, from_json
from espalier.core.ports import ChatRequest, Delta, EngineLoad
from espalier.serve.environment import share_environment
from espalier.serve.replicas.frames import Frame, FrameLine, decode_delta, encode_request

State = Literal["starting", "ready", "draining", "gone"]
Tell = Callable[[Delta | EspalierError | None], None]  # None: the answer has ended

_LAST_WORDS_S = 10.0


@dataclass(slots=True, eq=False)
class Flight:
    """One request on its way to an answer."""

    request: ChatRequest
    tokens: int  # of prompt and answer, at their longest, as far as can be told without counting
    tell: Tell
    since_s: float
    told: bool = False  # its asker has had a piece
    tries: int = 0
    over: bool = False


@dataclass(eq=False)
class Replica:
    """A worker process and the line to it."""

    number: int
    on_lost: Callable[[Replica], None]
    state: State = "starting"
    flights: dict[int, Flight] = field(default_factory=dict)
    adapters: set[str] = field(default_factory=set)
    load: EngineLoad = field(default_factory=EngineLoad)
    memory_bytes: int = 0
    began_s: float = 0.0  # when it became ready; 0 before
    listening: bool = False  # it has been asked how busy it is
    # By digest, held while it is taught or forgotten: one that hangs keeps no other from coming or going.
    teaching: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    _calls: dict[int, asyncio.Future[Any]] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None
    _line: FrameLine | None = None
    _last: int = 0

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def tokens(self) -> int:
        """What its requests may come to."""
        return sum(flight.tokens for flight in list(self.flights.values()))  # a copy: other threads may ask

    async def open(self, threads: int, plan: Frame) -> None:
        """Start the process and have it load `plan`. Raises what loading raised, Unavailable when the process died."""
        ours, theirs = socket.socketpair()
        try:
            command = [sys.executable, "-m", "espalier.serve.replicas.worker", str(theirs.fileno())]
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                env=_environment(threads),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # what a server prints there is a contract
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise Unavailable(f"a replica could not be started: {error}") from error
        finally:
            theirs.close()
        line = self._line = FrameLine(self._take, self._lose)
        await asyncio.get_running_loop().create_unix_connection(lambda: line, sock=ours)
        told = await self._send("open", **plan)
        self.memory_bytes = told["memory_bytes"]

    async def call(self, name: str, *arguments: Any) -> Any:
        """Raises what the call raised there, Unavailable when the process dies before it answers."""
        return await self._send("call", name=name, args=list(arguments))

    def ask(self, flight: Flight) -> None:
        """Have it answer; its pieces and its end are told to the flight, its loss to `on_lost`.

        Raises InvalidInput for a request that is too long to be sent.
        """
        self._last += 1
        if self._line is not None:
            self._line.send({"op": "ask", "id": self._last, "request": encode_request(flight.request)})
        self.flights[self._last] = flight

    def cancel(self, flight: Flight) -> None:
        """Forget a flight, and have its slot freed."""
        for number in [number for number, each in self.flights.items() if each is flight]:
            del self.flights[number]
            if self._line is not None:
                self._line.send({"op": "cancel", "id": number})

    def kill(self) -> None:
        """End it at once; `on_lost` follows."""
        if self._process is not None:
            self._process.kill()

    async def close(self) -> None:
        """End it in good order, by force where that takes too long; returns when the process is gone."""
        if self._line is not None:
            self._line.close()
        if self._process is not None:
            process = self._process
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(process.wait, _LAST_WORDS_S)
                return
            process.kill()
            await asyncio.to_thread(process.wait)

    async def _send(self, operation: str, **words: Any) -> Any:
        if self._line is None or self.state == "gone":
            raise Unavailable("the replica is gone", hint="ask again")
        self._last += 1
        self._line.send({"op": operation, "id": self._last, **words})
        answer = self._calls[self._last] = asyncio.get_running_loop().create_future()
        return await answer

    def _take(self, frame: Frame) -> None:
        number = frame["id"]
        error = from_json(frame["error"]) if "error" in frame else None
        call = self._calls.pop(number, None)
        if call is not None:
            if not call.done():  # whoever asked may have left
                call.set_exception(error) if error is not None else call.set_result(frame["value"])
            return
        flight = self.flights.get(number)
        if flight is None:
            return  # cancelled meanwhile
        if "delta" in frame:
            delta = decode_delta(frame["delta"])
            if delta.finish_reason == "cancelled" and not flight.told:
                # Nobody here cancelled it, so its engine broke down: the process will end, and `on_lost` finds it here.
                self.flights[-number] = self.flights.pop(number)
                return
            flight.told = True
            flight.tell(delta)
            return
        del self.flights[number]
        flight.over = True
        flight.tell(error)

    def _lose(self) -> None:
        self.state = "gone"
        for call in self._calls.values():
            if not call.done():
                call.set_exception(Unavailable("the replica died", hint="ask again"))
        self._calls.clear()
        if self._process is not None and self._process.poll() is None:
            self._process.kill()  # it may live on without its line
        self.on_lost(self)


def _environment(threads: int) -> dict[str, str]:
    return {**share_environment(), "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
