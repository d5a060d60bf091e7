"""`BatchRunner`: takes batches off the durable queue and works on them, some at a time, until it is stopped.

    lease -> journal's lock -> work -> results and the job's end in one transaction, or nothing of it
      |         heartbeat: prolongs the lease; hears of cancellation, expiry, a revoked key
      '-- lost, or the process is stopping: the batch waits in the queue as it stands

Two processes never do one batch twice: a lease ends only when its worker has been silent, the journal's lock tells a
slow worker from a dead one, and a worker whose lease went to another may not write down an end. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
import logging
import os
import shutil
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from espalier.core.config import BatchConfig
from espalier.core.errors import Conflict, DigestMismatch, EspalierError, InvalidInput, LeaseLost, NotFound, StorageFull
from espalier.core.ids import now_ms
from espalier.gateway.batch.deliver import deliver
from espalier.gateway.batch.files import Files
from espalier.gateway.batch.publish import Results
from espalier.gateway.batch.records import Batch, BatchEnd, Batches, Ending, job_id
from espalier.gateway.batch.work import Why, Work
from espalier.gateway.desk import Desk
from espalier.gateway.keys import KeyRing
from espalier.store.jobs import Lease
from espalier.store.store import Store

Result = TypeVar("Result")

_POLL_S = 0.5
_BEAT_S = 2.0  # how soon a cancellation is heard of, at the latest
_ORPHANS_EVERY_S = 60.0
_AGAIN_S = 30.0  # after a failure that may pass: a full disk, a busy database
_STALE_UPLOAD_S = 86_400.0
_BUSY_S = 2.0  # after another process was found at work
_ENDINGS: dict[Why, Ending] = {"cancel": "cancelled", "expire": "expired", "revoke": "cancelled", "fail": "failed"}
_FINAL = (InvalidInput, NotFound, DigestMismatch)
_log = logging.getLogger("espalier.gateway")


class BatchRunner:
    """Works in the loop it is started in. With `only`, on that batch and no other."""

    def __init__(
        self, store: Store, desk: Desk, config: BatchConfig, *, most_line_bytes: int = 1 << 20, only: str = ""
    ) -> None:
        self._store, self._desk, self._config = store, desk, config
        self._most_line_bytes, self._only = most_line_bytes, only
        self._batches, self._files, self._keys = Batches(store), Files(store), KeyRing(store)
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._threads = ThreadPoolExecutor(4, "batch")
        self._works: dict[str, _Pulse] = {}
        self._tasks: set[asyncio.Future[None]] = set()
        self._loop: asyncio.Future[None] | None = None
        self._stopping = asyncio.Event()
        self._sign = -1

    def start(self) -> None:
        """Begin in the running loop."""
        self._sign = raise_sign(self._batches.folder) if not self._only else -1
        self._loop = asyncio.ensure_future(self._run())

    async def stop(self) -> None:
        """Drop what is under way; the journals and the reservations keep it for the next process."""
        self._stopping.set()
        for pulse in self._works.values():
            pulse.work.halt("stop")
        if self._loop is not None:
            await asyncio.wait({self._loop, *self._tasks})
        self._threads.shutdown(wait=True)
        if self._sign >= 0:
            os.close(self._sign)

    async def _run(self) -> None:
        looked_s = float("-inf")
        while not self._stopping.is_set():
            try:
                if asyncio.get_running_loop().time() - looked_s > _ORPHANS_EVERY_S and not self._only:
                    looked_s = asyncio.get_running_loop().time()
                    await self._settle_orphans()
                while len(self._works) < self._config.at_once and await self._take_one():
                    pass
            except EspalierError as error:  # the database is busy or away: the queue waits
                _log.warning("batches cannot be taken: %s", error)
            except Exception:  # noqa: BLE001 - or nobody would take a batch any more, and nobody would know
                _log.exception("batches cannot be taken")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _POLL_S)

    async def _take_one(self) -> bool:
        lease = await self._off_loop(self._lease, list(self._works.values()))
        if lease is None:
            return False
        batch = await self._off_loop(self._store.records.get, "batch", lease.job.payload["batch"], Batch)
        # Looked at before it is worked on: one whose end is due would be asked as far as it comes until the first beat.
        why: Why = "cancel" if lease.cancel_requested else await self._off_loop(self.wants_end, batch)
        if self._stopping.is_set() or batch.id in self._works:  # what lost it has not let go yet
            await self._off_loop(self._store.jobs.release, lease)
            return False
        self._spawn(batch, lease, why)
        return True

    def _lease(self, pulses: list[_Pulse]) -> Lease | None:
        # Who looks for work takes it from workers that were silent too long, which, after this process was held up, may
        # be itself.
        mine = [pulse.lease.job.id for pulse in pulses if pulse.lease is not None and not pulse.lost]
        job = job_id(self._only) if self._only else ""
        return self._store.jobs.lease(
            self._name, self._config.lease_s, [self._batches.operation], job_id=job, last=False, mine=mine
        )

    def _spawn(self, batch: Batch, lease: Lease | None, why: Why) -> None:
        work = Work(self._store, self._desk, batch, self._config, self._most_line_bytes)
        if why:
            work.halt(why)
        pulse = self._works[batch.id] = _Pulse(self, work, lease)
        task = asyncio.ensure_future(self._work(work, pulse))
        self._tasks.add(task)
        task.add_done_callback(functools.partial(self._forget, batch.id))

    def _forget(self, id: str, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        del self._works[id]

    async def _work(self, work: Work, pulse: _Pulse) -> None:
        """One batch until it has ended or is let go of; whatever happens, the queue is told."""
        beating = asyncio.ensure_future(pulse.beat())
        try:
            results = await work.run()
            if results is None:
                await self._let_go(pulse.lease, 0.0 if pulse.lost else None)
            else:
                await self._off_loop(self._finish, pulse.lease, work, results)
        except LeaseLost:
            _log.warning("batch %s went to another worker", work.batch.id)
        except _FINAL as error:
            await self._off_loop(self._fail, pulse.lease, work.batch, error)
        except Conflict as error:
            await self._let_go(pulse.lease, _BUSY_S, error)
        except EspalierError as error:
            _log.warning("batch %s is put off: %s", work.batch.id, error)
            await self._let_go(pulse.lease, _AGAIN_S, error)
        except Exception as error:  # noqa: BLE001 - a bug in one batch must not take the others with it
            _log.exception("batch %s broke down", work.batch.id)
            bug = EspalierError(f"{type(error).__name__}: {error}", hint="this is a bug; the log has the traceback")
            await self._let_go(pulse.lease, _AGAIN_S, bug)
        finally:
            beating.cancel()
            await asyncio.wait({beating})

    async def _let_go(self, lease: Lease | None, again_s: float | None, error: EspalierError | None = None) -> None:
        """Back to the queue: as it was found when `again_s` is None, else after so many seconds."""
        if lease is None:
            return
        with suppress(EspalierError):  # lost, or the database is away: the lease ends by itself
            if again_s is None:
                await self._off_loop(self._store.jobs.release, lease)
            elif error is not None:
                await self._off_loop(self._store.jobs.fail, lease, error, again_s)

    def _finish(self, lease: Lease | None, work: Work, results: Results) -> None:
        """Results, files and end in one transaction, then the folder goes."""
        batch, progress = work.batch, work.progress
        ending: Ending = _ENDINGS.get(work.why, "completed")
        code, fault = "", ""
        if ending == "completed" and not progress.completed:  # no `code`: to OpenAI's clients it completed
            fault = f"none of {progress.total:,} lines was answered: {results.fault}"
        if batch.destination:
            try:
                deliver(self._store.blobs, batch, results, progress)
            except StorageFull:
                raise
            except EspalierError as error:  # the results are kept, and can be fetched from here
                ending, code, fault = "failed", error.code, error.message
        job = self._store.jobs.get(job_id(batch.id))
        with self._store.transaction():
            end = BatchEnd(
                id=batch.id,
                status=ending,
                output=results.output,
                output_file=self._name_file(batch, results.output, results.output_bytes, "output"),
                errors=results.errors,
                error_file=self._name_file(batch, results.errors, results.errors_bytes, "errors"),
                started_ms=job.started_ms,
                ended_ms=now_ms(),
                fault_code=code,
                fault=fault,
                **progress.model_dump(
                    include={"total", "completed", "failed", "prompt_tokens", "completion_tokens", "finalizing_ms"}
                ),
            )
            self._batches.finish(lease, end)
        shutil.rmtree(self._batches.folder_of(batch.id), ignore_errors=True)

    def _name_file(self, batch: Batch, sha256: str, size_bytes: int, what: str) -> str:
        if not sha256:
            return ""
        name = f"{batch.id}_{what}.jsonl"
        return self._files.record(sha256, size_bytes, name, "batch_output", batch.owner).id

    def _fail(self, lease: Lease | None, batch: Batch, error: EspalierError) -> None:
        fault = f"{error.message}. Next: {error.hint}" if error.hint else error.message
        end = BatchEnd(id=batch.id, status="failed", ended_ms=now_ms(), fault_code=error.code, fault=fault)
        with suppress(LeaseLost):
            self._batches.finish(lease, end)
            self._desk.release_lines(batch.id)  # nobody asks for them again

    async def _settle_orphans(self) -> None:
        """Publish what is done of batches that the queue has given up, and sweep the folders of those that ended."""
        for batch, why in await self._off_loop(self._find_orphans):
            if batch.id not in self._works and not self._stopping.is_set():
                self._spawn(batch, None, why)

    def _find_orphans(self) -> list[tuple[Batch, Why]]:
        for upload in (self._store.workspace.folder / "uploads").glob("*"):  # a process was killed while they came
            with suppress(OSError):
                if upload.is_file() and now_ms() / 1000 - upload.stat().st_mtime > _STALE_UPLOAD_S:
                    upload.unlink()
        orphans: list[tuple[Batch, Why]] = []
        for folder in self._batches.folder.glob("batch_*"):
            with suppress(NotFound):
                standing = self._batches.get(folder.name)
                job = self._store.jobs.get(job_id(folder.name))
                if standing.end is not None:
                    shutil.rmtree(folder, ignore_errors=True)
                elif job.status in ("failed", "cancelled"):
                    orphans.append((standing.batch, "cancel" if job.status == "cancelled" else "fail"))
        return orphans

    def wants_end(self, batch: Batch) -> Why:
        """Why a batch is to end now, if it is. Blocks."""
        if self._batches.is_cancelled(batch.id):
            return "cancel"
        if batch.key is not None and self._keys.is_revoked(batch.key):
            return "revoke"
        return "expire" if now_ms() > batch.expires_ms else ""

    async def _off_loop(self, call: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    def heartbeat(self, lease: Lease) -> Lease:
        """The lease, longer. Raises LeaseLost. Blocks."""
        return self._store.jobs.heartbeat(lease)

    async def renew(self, pulse: _Pulse) -> None:
        """A pulse's `renew` off the loop."""
        await self._off_loop(pulse.renew)


class _Pulse:
    """Keeps one batch's lease alive, and tells its work when it is to end."""

    def __init__(self, runner: BatchRunner, work: Work, lease: Lease | None) -> None:
        self._runner, self.work = runner, work
        self.lease = lease
        self.lost = False
        self._wanted: Why = ""

    async def beat(self) -> None:
        """Renew the lease and look around, again and again."""
        while True:
            await self._runner.renew(self)
            if self._wanted:
                self.work.halt(self._wanted)
            if self.lost:
                return
            await asyncio.sleep(min(_BEAT_S, (self.lease.ttl_s if self.lease else _BEAT_S) / 3))

    def renew(self) -> None:
        """One heartbeat, and a look at whether the batch is still wanted. Blocks; the next beat acts on it."""
        if self.lost:
            return
        try:
            if self.lease is not None:
                self.lease = self._runner.heartbeat(self.lease)
            cancelled = self.lease is not None and self.lease.cancel_requested
            self._wanted = "cancel" if cancelled else self._runner.wants_end(self.work.batch)
        except LeaseLost:
            self.lost, self._wanted = True, "stop"
        except EspalierError as error:  # the database is busy or away: the lease holds until its time is up
            _log.warning("no heartbeat for batch %s: %s", self.work.batch.id, error)
        except Exception:  # noqa: BLE001 - or the heart would stop, and the batch be taken from who works on it
            _log.exception("no heartbeat for batch %s", self.work.batch.id)


def raise_sign(folder: Path) -> int:
    """Show that a server of this workspace takes batches: a locked file, its lock gone however the process ends.

    Several servers may show it at once. Returns the descriptor that holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "served", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def sees_sign(folder: Path) -> bool:
    """Whether some living server takes batches of this workspace."""
    with suppress(FileNotFoundError):
        descriptor = os.open(folder / "served", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False
