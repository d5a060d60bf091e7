"""`ModelPool`: the bases this server answers for, under one memory budget; adapters hot-loaded by digest.

A base is loaded when it is first asked for, and let go when nobody has asked for it for a while or another needs its
room; loading one keeps nobody waiting who asks another. A request pins its base and its adapter from its admission to
its end, so whatever an alias points to meanwhile, it is answered by what it was admitted for.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar, cast

from espalier.core.errors import EspalierError, NotFound, Unavailable
from espalier.core.ports import ChatRequest, Delta, ModelEngine, ReservedShare
from espalier.core.types import ModelVersion
from espalier.services.bases import place_base
from espalier.services.scaling import Scaling, rule_of
from espalier.services.seat import Seat, give_memory_back

if TYPE_CHECKING:
    from espalier.core.config import ServeConfig
    from espalier.serve.residency import Lease, Resident
    from espalier.store.store import Store

Thing = TypeVar("Thing")
OpenEngine = Callable[[str], ModelEngine]  # a base's name in the registry -> its engine, not started

_ON_THIS_MACHINE = ("embedded", "replicas")
_HELD_S = 30.0  # an admitted request that does not come for its answer by then keeps nothing loaded
_LOOK_S = 1.0
_MEASURE_S = 15.0
_log = logging.getLogger("espalier.serve")


class _Use:
    """Base and adapter pinned for one request."""

    def __init__(self, base: Lease[Seat], adapter: str) -> None:
        self.base = base
        self.adapter: Lease[str] | None = None
        self._digest = adapter
        self.since_s = time.monotonic()

    def pin_adapter(self) -> None:
        """Begin to load it; the base is there. Raises what the base's loading raised."""
        if self._digest and self.adapter is None:
            self.adapter = self.base.loaded.result().adapters.acquire(self._digest)

    def release(self) -> None:
        if self.adapter is not None:
            self.adapter.release()
        self.base.release()


class ModelPool:
    """Implements core.ports.ChatProvider over one engine for each base. Every method may be called from any thread.

    `open_engine` makes the engine of a base; by default the one that `serve.engines` chooses.
    """

    def __init__(self, store: Store, config: ServeConfig, *, open_engine: OpenEngine | None = None) -> None:
        from espalier.serve.footprint import budget_bytes
        from espalier.serve.residency import Residency

        self._store = store
        self._config = config
        self._open = open_engine or self._open_chosen
        self._reserved: Mapping[str, Sequence[ReservedShare]] = {}
        self._holds: dict[str, _Use] = {}
        self._starting: set[ModelEngine] = set()
        self._lock = threading.Lock()  # guards the three above; never held while anything is loaded
        self._bases: Residency[Seat] = Residency(
            "base",
            self._load_base,
            lambda _, seat: seat.close(),
            budget_bytes=budget_bytes(config),
            keeps=lambda base: bool(self._reserved.get(base)),
            freed=give_memory_back,
        )
        self._scaling = Scaling(config)
        self._measured_s = 0.0
        self._stopping = threading.Event()
        self._keeper: threading.Thread | None = None

    def warm(self, version: ModelVersion) -> None:
        """Load a version's base and adapter before anyone asks. Raises what loading raises."""
        self.load(version.base, version.adapter)

    def load(self, base: str, adapter: str = "") -> None:
        """Have a base, and an adapter on it, answer at once. Raises what loading raises."""
        use = self._begin(base, adapter)
        try:
            use.base.loaded.result()
            use.pin_adapter()
            if use.adapter is not None:
                use.adapter.loaded.result()
        finally:
            use.release()

    def unload(self, base: str, adapter: str = "") -> None:
        """Let a base, or one adapter on it, go when the answers under way have ended; returns when it is gone.

        Whoever asks for it afterwards has it loaded anew. Raises NotFound for what is not loaded.
        """
        gone = None
        if not adapter:
            gone = self._bases.evict(base)
        else:
            found = [r.thing for r in self._bases.residents() if r.name == base and r.thing is not None]
            gone = found[0].adapters.evict(adapter) if found else None
            del found
        if gone is None:
            raise NotFound(
                f"{f'adapter {adapter[:12]} on ' if adapter else ''}{base} is not loaded",
                hint="`espalier deployments engines` lists what is",
            )
        gone.wait()

    def count_prompt_tokens(self, request: ChatRequest) -> int:
        """Exact. Pins what the answer needs, and begins to load it; waits for nothing but the base's tokenizer."""
        use = self._begin(request.base, request.adapter)
        try:
            count = None if use.base.loaded.done() else self._count_before(request)
            if count is None:
                seat = use.base.loaded.result()
                use.pin_adapter()
                count = seat.engine.count_prompt_tokens(request)
        except BaseException:
            use.release()
            raise
        with self._lock:
            replaced, self._holds[request.id] = self._holds.get(request.id), use
        if replaced is not None:
            replaced.release()
        return count

    async def stream(self, request: ChatRequest) -> AsyncIterator[Delta]:
        """The engine's own stream, once base and adapter are there; both stay until it ends or is closed."""
        with self._lock:
            use = self._holds.pop(request.id, None)
        use = use or self._begin(request.base, request.adapter)
        try:
            seat = await _wait_for(use.base.loaded)
            use.pin_adapter()
            if use.adapter is not None:
                await _wait_for(use.adapter.loaded)
            async with aclosing(cast("AsyncGenerator[Delta, None]", seat.engine.stream(request))) as deltas:
                async for delta in deltas:
                    yield delta
        finally:
            use.release()

    def hold(self, by_base: Mapping[str, Sequence[ReservedShare]]) -> None:
        """Reserve exactly so much on each base, now and whenever it is loaded; a base with a reservation stays loaded.

        Raises what `HoldsCapacity.hold` raises.
        """
        with self._lock:
            self._reserved = dict(by_base)
        refusals = [refusal for refusal in map(self._reserve, self._list_seats()) if refusal is not None]
        if refusals:
            raise refusals[0]

    def is_ready(self, base: str) -> bool:
        """Whether the base is loaded."""
        return any(resident.name == base and resident.thing is not None for resident in self._bases.residents())

    def list_bases(self) -> list[Resident[Seat]]:
        """What is loaded, being loaded and on its way out."""
        return self._bases.residents()

    def stop(self) -> None:
        """Stop every engine; answers under way end as cancelled."""
        self._stopping.set()
        if self._keeper is not None:
            self._keeper.join()
        with self._lock:
            held, self._holds = list(self._holds.values()), {}
            starting = list(self._starting)
        for use in held:
            use.release()
        for engine in starting:  # it may take minutes, for nothing
            try:
                engine.stop()
            except Exception:  # noqa: BLE001 - it keeps no other engine from being stopped
                _log.exception("an engine that is starting could not be stopped")
        self._bases.close()

    def _begin(self, base: str, adapter: str) -> _Use:
        """Pin a base, and begin to load it where it is not there. Raises InvalidInput, NotFound, Unavailable."""
        if self._keeper is None:
            self._keep()
        use = _Use(self._bases.acquire(base, lambda: self._estimate(base)), adapter)
        try:
            if use.base.loaded.done() and not use.base.loaded.exception():
                use.pin_adapter()
        except BaseException:
            use.release()
            raise
        return use

    def _load_base(self, base: str) -> tuple[Seat, int]:
        started_s = time.monotonic()
        engine = self._open(base)
        seat = Seat(base, engine, self._config, self._store.artifacts.materialise)
        seat.copy_bytes = self._estimate_copy(base)
        try:
            self._start(engine)
            if refusal := self._reserve(seat):  # what it cannot hold keeps nobody from asking it
                _log.error("%s holds no reserved capacity: %s", base, refusal)
            seat.warm()
        except BaseException:
            seat.close()
            raise
        size_bytes = seat.measure_bytes()
        _log.info("loaded %s in %.1f s, %.0f MB", base, time.monotonic() - started_s, size_bytes / 1e6)
        return seat, size_bytes

    def _start(self, engine: ModelEngine) -> None:
        """Raises what starting it raises, Unavailable when all is stopping."""
        with self._lock:
            if self._stopping.is_set():
                raise Unavailable("the server is stopping", hint="ask again in a moment")
            self._starting.add(engine)
        try:
            engine.start()
        finally:
            with self._lock:
                self._starting.discard(engine)

    def _open_chosen(self, base: str) -> ModelEngine:
        from espalier.services.engines import open_engine

        folder = self._store.workspace.folder / "engines"
        return open_engine(base, place=place_base(self._store, base), serve=self._config, folder=folder)

    def _estimate(self, base: str) -> int:
        """What a base will take here: as many copies as its engine starts with."""
        from espalier.services.engines import choose_engine

        chosen = choose_engine(base, self._config)
        copies = max(1, rule_of(self._config, chosen).min_replicas) if chosen.kind == "replicas" else 1
        return copies * self._estimate_copy(base)

    def _estimate_copy(self, base: str) -> int:
        """What one engine over it will take here; nothing where it runs elsewhere."""
        from espalier.serve.footprint import estimate_bytes
        from espalier.services.engines import choose_engine

        if choose_engine(base, self._config).kind not in _ON_THIS_MACHINE:
            return 0
        return estimate_bytes(place_base(self._store, base), self._config)

    def _count_before(self, request: ChatRequest) -> int | None:
        """The prompt's tokens by the tokenizer alone, while the base is loading; None where that cannot be told."""
        from espalier.nn.locate import locate_base
        from espalier.serve.shape import shown_tools
        from espalier.services.engines import runs_elsewhere
        from espalier.tokens.tokenizer import load_tokenizer

        if runs_elsewhere(request.base, self._config):
            return None  # by its own template
        try:
            folder = locate_base(place_base(self._store, request.base), fetch=False)
        except EspalierError:
            return None
        return len(load_tokenizer(folder).encode_prompt(request.messages, tools=shown_tools(request)))

    def _list_seats(self) -> list[Seat]:
        """Of the bases that are ready."""
        return [resident.thing for resident in self._bases.residents() if resident.thing is not None]

    def _reserve(self, seat: Seat) -> EspalierError | None:
        """Have a base hold its share of what is reserved now; why it cannot, if it cannot."""
        with seat.telling:
            with self._lock:
                shares = self._reserved.get(seat.base, ())
            try:
                seat.hold(shares)
            except EspalierError as refusal:
                return refusal
        return None

    def _keep(self) -> None:
        with self._lock:
            if self._keeper is None and not self._stopping.is_set():
                self._keeper = threading.Thread(target=self._look_after, name="espalier-pool", daemon=True)
                self._keeper.start()

    def _look_after(self) -> None:
        """Every second: forget holds nobody came for, let idle and broken bases go, measure, scale."""
        while not self._stopping.wait(_LOOK_S):
            try:
                self._look()
            except Exception:  # noqa: BLE001 - the next look may go well; the log says why this one did not
                _log.exception("looking after the loaded bases failed")

    def _look(self) -> None:
        now_s = time.monotonic()
        with self._lock:
            late = [name for name, use in self._holds.items() if now_s - use.since_s > _HELD_S]
            forgotten = [self._holds.pop(name) for name in late]
        for use in forgotten:
            use.release()
        if self._config.idle_s:
            self._bases.evict_idle(self._config.idle_s)
        measures = now_s - self._measured_s >= _MEASURE_S
        self._measured_s = now_s if measures else self._measured_s
        for seat in self._list_seats():
            try:
                self._look_at(seat, measures=measures)
            except Exception:  # noqa: BLE001 - it keeps no other base from being looked after
                _log.exception("looking after %s failed", seat.base)

    def _look_at(self, seat: Seat, *, measures: bool) -> None:
        self._reserve(seat)  # what was reserved while it was being loaded
        if seat.broken:
            _log.error("the engine of %s broke; whoever asks next has it loaded anew", seat.base)
            self._bases.evict(seat.base)
            return
        if measures:
            self._bases.resize(seat.base, seat.measure_bytes())
        own_bytes = sum(resident.size_bytes for resident in self._bases.residents() if resident.thing is seat)
        room_bytes = self._bases.budget_bytes - self._bases.used_bytes() + own_bytes
        self._scaling.look(seat.base, seat.engine, room_bytes, seat.copy_bytes)


async def _wait_for(future: Future[Thing]) -> Thing:
    return future.result() if future.done() else await asyncio.wrap_future(future)
