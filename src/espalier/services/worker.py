"""`Worker`: leases jobs and does them, with heartbeats, so that work is finished once however often processes die.

    lease -> run "running" -> operation.call(context, request) -> complete
                 |   every event: stop asked for? lease lost?  -> release, cancelled, or discard
                 heartbeat thread: prolongs the lease, hears of a cancellation

Emitting an event is the point at which work can be stopped, so work that reports progress is work that stops soon.
Knows the queue and the operations table, no operation.
"""

from __future__ import annotations

import os
import socket
import threading
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from espalier.core.errors import EspalierError, Interrupted, LeaseLost, NotFound
from espalier.core.events import Emit, Event, ignore
from espalier.core.faults import summarise
from espalier.core.ids import now_ms
from espalier.core.operations import find_operation
from espalier.core.types import Principal, Run
from espalier.services.context import Context
from espalier.services.dispatch import parse_request
from espalier.services.queue import job_id

if TYPE_CHECKING:
    from espalier.store.jobs import Job, Lease
    from espalier.store.store import Store

BATCHES = "batches:"  # jobs of batch inference, which gateway/batch/runner.py takes
_ENDED = ("succeeded", "failed", "cancelled")
_ORPHANS_EVERY_S = 30.0
_BEAT_S = 2.0  # how soon a cancellation is heard of


class Worker:
    """Works on one workspace's queue; `start` does so in a daemon thread until `stop`."""

    def __init__(self, context: Context, *, name: str = "", ttl_s: float = 30.0, poll_s: float = 0.5) -> None:
        self._context = context
        self._name = name or f"{socket.gethostname()}:{os.getpid()}"
        self._ttl_s, self._poll_s = ttl_s, poll_s
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Work in the background."""
        self._thread = threading.Thread(target=self.run, name=f"worker {self._name}", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Take no new job; the one in hand goes back to the queue at its next event. Waits at most `timeout_s`."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def run(self) -> None:
        """Lease and work until `stop`."""
        since_ms = 0
        while not self._stopping.is_set():
            if now_ms() - since_ms > _ORPHANS_EVERY_S * 1000:
                settle_orphans(self._context.store)
                since_ms = now_ms()
            lease = self._context.store.jobs.lease(self._name, self._ttl_s, without=BATCHES)
            if lease is None:
                self._stopping.wait(self._poll_s)
            else:
                self._work(lease, ignore)

    def work_on(self, run: str, watch: Emit) -> Run | None:
        """Do the job of `run` in the calling thread, its events going to `watch` too; None when another has it.

        A failure is on the returned run. Ctrl-C ends it as cancelled and raises Interrupted, which says how to go on.
        """
        store = self._context.store
        settle_orphans(store)
        lease = store.jobs.lease(self._name, self._ttl_s, job_id=job_id(run))
        return None if lease is None else self._work(lease, watch)

    def _work(self, lease: Lease, watch: Emit) -> Run:
        store, run = self._context.store, lease.job.payload["run"]
        log = store.runs.emitter(run)
        with _Pulse(store, lease, self._stopping) as pulse:

            def emit(event: Event) -> None:
                log(event)
                watch(event)
                pulse.check()

            try:
                self._perform(lease, emit, pulse.is_unwanted)
                return _end(store, lease, run, "succeeded", log, watch)
            except KeyboardInterrupt:
                _end(store, lease, run, "cancelled", log, watch)
                raise Interrupted(
                    "stopped by Ctrl-C", hint="run the same command again: finished steps are kept and training resumes"
                ) from None
            except LeaseLost:  # another worker has it: whatever we made is discarded, and its word counts
                return store.runs.get(run)
            except Interrupted as error:
                if pulse.cancelled:
                    return _end(store, lease, run, "cancelled", log, watch)
                if self._stopping.is_set():
                    with store.transaction():  # at once: else whoever takes it in between is told to be waiting still
                        store.jobs.release(lease)
                        return store.runs.update(run, status="queued")
                return _end(store, lease, run, "failed", log, watch, error)
            except EspalierError as error:
                return _end(store, lease, run, "failed", log, watch, error)
            except Exception as error:  # noqa: BLE001 - a bug in one job must not take the worker with it
                folder = store.runs.folder(run)
                (folder / "log.txt").write_text(traceback.format_exc(), "utf-8")
                wrapped = EspalierError(
                    summarise(error), hint=f"this is a bug; the traceback is in {folder / 'log.txt'}"
                )
                return _end(store, lease, run, "failed", log, watch, wrapped)

    def _perform(self, lease: Lease, emit: Emit, stopped: Callable[[], bool]) -> None:
        store, job = self._context.store, lease.job
        run: str = job.payload["run"]
        store.runs.update(run, status="running", started_ms=store.runs.get(run).started_ms or now_ms())
        emit(Event("run.started", {"run": run, "operation": job.operation, "attempt": job.attempts}))
        declared = find_operation(job.operation)
        principal = Principal(actor=job.actor, role=job.payload["role"])
        context = self._context.acting_as(principal).working_on(run, emit, stopped)
        context = context.confine() if job.payload.get("confined") else context
        declared.call(context, parse_request(declared, job.payload["request"]))


class _Pulse:
    """Keeps a lease alive from a daemon thread, and remembers what the queue said about it."""

    def __init__(self, store: Store, lease: Lease, stopping: threading.Event) -> None:
        self._store, self._lease, self._stopping = store, lease, stopping
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat {lease.job.id}", daemon=True)
        self.cancelled = False
        self._lost: LeaseLost | None = None

    def __enter__(self) -> _Pulse:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def is_unwanted(self) -> bool:
        """Whether the work is no longer wanted here."""
        return self.cancelled or self._lost is not None or self._stopping.is_set()

    def check(self) -> None:
        """Raises LeaseLost or Interrupted when the work is no longer wanted here."""
        if self._lost is not None:
            raise self._lost
        if self.cancelled:
            raise Interrupted("the job was cancelled", hint="start it again: finished steps are kept")
        if self._stopping.is_set():
            raise Interrupted("the worker is stopping", hint="the job is queued again")

    def _beat(self) -> None:
        while not self._over.wait(min(self._lease.ttl_s / 3, _BEAT_S)):
            try:
                self._lease = self._store.jobs.heartbeat(self._lease)
            except LeaseLost as error:
                self._lost = error
                return
            except EspalierError:
                continue  # the database was busy or away: the lease holds until its time is up
            self.cancelled = self._lease.cancel_requested


def settle_run(store: Store, job: Job) -> None:
    """Give the run of a job that ended without its worker's word the job's end."""
    run = job.payload.get("run", "")
    if job.status in _ENDED and run and store.runs.get(run).status not in _ENDED:
        store.runs.update(run, status=job.status, ended_ms=job.ended_ms, error=job.error)


def settle_orphans(store: Store) -> None:
    """End the runs whose worker was killed and whose job the queue has given up."""
    for status in ("running", "queued"):
        for run in store.runs.list(status=status, limit=1000):
            try:
                settle_run(store, store.jobs.get(job_id(run.id)))
            except NotFound:
                continue  # a run without a job: a step's, or one made by hand


def _end(
    store: Store,
    lease: Lease,
    run: str,
    status: str,
    log: Emit,
    watch: Emit,
    error: EspalierError | None = None,
) -> Run:
    changes: dict[str, Any] = {"status": status, "ended_ms": now_ms()}
    if error is not None:
        changes["error"] = error.to_json()
    finish: dict[str, Callable[[], Job]] = {
        "succeeded": lambda: store.jobs.complete(lease),
        "cancelled": lambda: store.jobs.cancelled(lease),
        "failed": lambda: store.jobs.fail(lease, error or EspalierError("failed")),
    }
    with store.transaction():
        finish[status]()  # first: a worker that lost its lease says and changes nothing
        event = Event("run.finished", {"run": run, **changes})
        log(event)  # before the run's end is seen: who follows the log reads on until then
        ended = store.runs.update(run, **changes)
    watch(event)
    return ended
