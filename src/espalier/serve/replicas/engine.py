"""`ReplicaEngine`: a base as several processes, behind the same Protocol as one. Imports no torch.

All state belongs to one event loop in a thread of its own (`_Crew`); the methods here hand work over to it. A request
whose replica dies before its first piece is put to another; one that was being answered ends with Unavailable, because
what was said cannot be taken back. Knows no registry and no scaling policy.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from espalier.core.errors import EspalierError, NotFound, Unavailable
from espalier.core.ports import ChatRequest, Delta, EngineLoad, ReservedShare
from espalier.serve.replicas.crew import Crew

if TYPE_CHECKING:
    from espalier.core.config import ServeConfig
    from espalier.serve.engines.plan import EnginePlan

Result = TypeVar("Result")


class ReplicaEngine:
    """Implements core.ports.ModelEngine, HoldsCapacity, TellMemory and Replicated.

    plan: what an entry point of `espalier.engines` is given; its own numbers of replicas go before the server's.
    """

    def __init__(self, plan: EnginePlan) -> None:
        self.base = plan.base
        fewest, most = _bounds(plan)
        self._crew = Crew(plan.base, plan.place, plan.serve, wanted=max(1, fewest), most=most)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # whatever is handed to the loop comes before its end, or not at all

    @property
    def answering(self) -> bool:
        """Whether it was started and not stopped: dead replicas are replaced without being asked."""
        return self._loop is not None

    def start(self) -> Self:
        """Start the processes; returns when the first of them answers. Raises what loading raised there."""
        if self._loop is None:
            loop = self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=loop.run_forever, name="espalier-replicas", daemon=True)
            self._thread.start()
            try:
                self._do(self._crew.open())
            except BaseException:
                self.stop()
                raise
        return self

    def stop(self) -> None:
        """End all processes; answers not finished end as `cancelled`."""
        with self._lock:
            loop, thread = self._loop, self._thread
            if loop is None or thread is None:
                return
            self._loop = self._thread = None
            ending = asyncio.run_coroutine_threadsafe(self._end(), loop)
        ending.result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    def load_adapter(self, digest: str, folder: Path) -> None:
        """Have it loaded on every replica, and on those that come."""
        self._do(self._crew.load_adapter(digest, folder))

    def unload_adapter(self, digest: str) -> None:
        """Take no new request for it, wait for those under way, let it go everywhere."""
        self._do(self._crew.unload_adapter(digest))

    def list_adapters(self) -> list[str]:
        """Digests that may be asked."""
        return self._crew.list_adapters()

    def count_prompt_tokens(self, request: ChatRequest) -> int:
        """Exact: a replica counts. Raises Unavailable when there is none for long."""
        return self._do(self._crew.count_prompt_tokens(request))

    def load(self) -> EngineLoad:
        """Of all replicas, and of what waits for one; as of the last second."""
        return self._crew.load()

    def memory_bytes(self) -> int:
        """What all replicas take."""
        return self._crew.memory_bytes()

    def hold(self, shares: Sequence[ReservedShare]) -> None:
        """Each replica holds its part of every share, rounded up."""
        self._do(self._crew.hold(shares))

    def count_replicas(self) -> int:
        """Those wanted: one that died is being replaced."""
        return self._crew.wanted

    def scale(self, replicas: int) -> None:
        """Be so many. New ones are asked once they are warm; those too many finish their answers first."""
        with contextlib.suppress(Unavailable):
            self._tell(self._crew.scale, replicas)

    def list_processes(self) -> list[int]:
        """Process ids of the replicas that answer."""
        return self._crew.list_processes()

    async def stream(self, request: ChatRequest) -> AsyncIterator[Delta]:
        """Answer one request in pieces. Closing the iterator cancels it on its replica.

        Raises what the engine there raises, and Unavailable when the replica died after its first piece.
        """
        if self._loop is None:
            raise _not_running()
        if request.base not in ("", self.base):
            raise NotFound(f"base {request.base} is not loaded", hint=f"this engine holds {self.base}")
        self._crew.check_adapter(request.adapter)
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Delta | EspalierError | None] = asyncio.Queue()

        def tell(said: Delta | EspalierError | None) -> None:
            with contextlib.suppress(RuntimeError):  # the asker's loop was closed: no fault of the replica's
                loop.call_soon_threadsafe(queue.put_nowait, said)

        flight = self._crew.make_flight(request, tell)
        self._tell(self._crew.dispatch, flight)
        try:
            while (said := await queue.get()) is not None:
                if isinstance(said, EspalierError):
                    raise said
                yield said
        finally:
            if not flight.over:
                with contextlib.suppress(Unavailable):  # it has stopped, and ended all of them
                    self._tell(self._crew.cancel, flight)

    async def _end(self) -> None:
        """Close the crew, then end what others still wait for: on a loop that has stopped they would wait for ever."""
        await self._crew.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _tell(self, what: Callable[..., None], *arguments: Any) -> None:
        """Have the loop call `what`. Raises Unavailable when it does not run."""
        with self._lock:
            if self._loop is None:
                raise _not_running()
            self._loop.call_soon_threadsafe(what, *arguments)

    def _do(self, work: Coroutine[Any, Any, Result]) -> Result:
        doing: Future[Result] | None = None
        with self._lock:
            if self._loop is not None:
                doing = asyncio.run_coroutine_threadsafe(work, self._loop)
        if doing is None:
            work.close()
            raise _not_running()
        try:
            return doing.result()
        except CancelledError:
            raise Unavailable("the engine is stopping", hint="ask again when it runs") from None


def _not_running() -> Unavailable:
    return Unavailable("the engine is not running", hint="ask again when it is")


def _bounds(plan: EnginePlan) -> tuple[int, int]:
    serve: ServeConfig = plan.serve
    fewest = serve.min_replicas if plan.engine.min_replicas is None else plan.engine.min_replicas
    most = serve.max_replicas if plan.engine.max_replicas is None else plan.engine.max_replicas
    return min(fewest, most), most
