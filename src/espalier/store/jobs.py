"""A durable queue: a job is done once, by whoever holds its lease, however often workers die.

    queued --lease--> running --complete--> succeeded         cancel: queued -> cancelled; a running one is told at its
      ^                  |------fail------> failed                    next heartbeat, and its worker says `cancelled`
      '---lease ended,---'  retry later
          attempts left

Every lease carries a fencing token, one higher than the last: the word of a worker whose job was given to another is
refused with LeaseLost, so nothing is completed twice. Knows no operation; the payload is JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import Connection, insert, select, update

from espalier.core.errors import Conflict, EspalierError, LeaseLost, NotFound
from espalier.core.ids import make_id, now_ms
from espalier.core.types import Spec
from espalier.store.database import Database
from espalier.store.tables import jobs

JobStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class Job(Spec):
    """One piece of work. `due_ms`: not before; `attempts`: how often a worker began it."""

    id: str
    operation: str
    payload: dict[str, Any]
    actor: str
    idempotency_key: str | None = None
    status: JobStatus
    attempts: int
    max_attempts: int
    due_ms: int
    worker: str = ""
    token: int = 0
    lease_until_ms: int = 0
    cancel_requested: bool = False
    result: dict[str, Any] | None = None
    error: dict[str, str] | None = None
    created_ms: int
    started_ms: int = 0
    ended_ms: int = 0


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's right to work on `job` until `until_ms`; `token` is what fences it."""

    job: Job
    worker: str
    token: int
    ttl_s: float
    until_ms: int
    cancel_requested: bool = False


class Jobs:
    """The queue of one store. `clock` gives milliseconds."""

    def __init__(self, database: Database, clock: Callable[[], int] = now_ms) -> None:
        self._database = database
        self._clock = clock

    def enqueue(
        self,
        operation: str,
        payload: Mapping[str, Any],
        actor: str,
        idempotency_key: str = "",
        *,
        max_attempts: int = 3,
        delay_s: float = 0,
        job_id: str = "",
    ) -> Job:
        """Queue a job; an idempotency key given before gives the job it made then (Conflict when for other work)."""
        now = self._clock()
        job = Job(
            id=job_id or make_id("job"),
            operation=operation,
            payload=dict(payload),
            actor=actor,
            idempotency_key=idempotency_key or None,
            status="queued",
            attempts=0,
            max_attempts=max_attempts,
            due_ms=now + round(delay_s * 1000),
            created_ms=now,
        )
        with self._database.write(lock="jobs") as connection:
            if idempotency_key:
                known = _first(connection, jobs.c.idempotency_key == idempotency_key)
                if known is not None:
                    if (known.operation, known.payload) != (operation, job.payload):
                        raise Conflict(
                            f"idempotency key {idempotency_key!r} was used for other work", hint="use a new one"
                        )
                    return known
            connection.execute(insert(jobs).values(**job.model_dump(mode="json") | {"cancel_requested": 0}))
        return job

    def lease(
        self,
        worker: str,
        ttl_s: float = 30,
        operations: Sequence[str] = (),
        *,
        job_id: str = "",
        last: bool = True,
        without: str = "",
        mine: Collection[str] = (),
    ) -> Lease | None:
        """The oldest job that is due (of these operations, if any), now `worker`'s; None when there is none.

        With `job_id` that job or none; unless `last` is false it is then taken due or not, and the attempt is its
        last: who takes a job by name waits for it, and when he dies nobody else does it. `without` is how operations
        begin that he does not know. `mine` are jobs he is at work on: he takes them from no silent worker, as that
        would be himself.
        """
        now = self._clock()
        until_ms = now + round(ttl_s * 1000)
        with self._database.write(lock="jobs") as connection:
            self._reap(connection, now, mine)
            query = select(jobs).where(jobs.c.status == "queued")
            if job_id:
                query = query.where(jobs.c.id == job_id)
            if not (job_id and last):
                query = query.where(jobs.c.due_ms <= now)
            if operations:
                query = query.where(jobs.c.operation.in_(operations))
            if without:
                query = query.where(~jobs.c.operation.startswith(without, autoescape=True))
            row = connection.execute(query.order_by(jobs.c.due_ms, jobs.c.id).limit(1)).mappings().first()
            if row is None:
                return None
            job = self._set(
                connection,
                row["id"],
                status="running",
                worker=worker,
                attempts=row["attempts"] + 1,
                max_attempts=row["attempts"] + 1 if job_id and last else row["max_attempts"],
                token=row["token"] + 1,
                lease_until_ms=until_ms,
                started_ms=row["started_ms"] or now,
            )
        return Lease(job, worker, job.token, ttl_s, until_ms)

    def expedite(self, job_id: str) -> None:
        """Let anybody take a queued job now, however long it was to wait; a job that is not queued stays as it is."""
        with self._database.write(lock="jobs") as connection:
            waiting = (jobs.c.id == job_id, jobs.c.status == "queued")
            connection.execute(update(jobs).where(*waiting).values(due_ms=self._clock()))

    def heartbeat(self, lease: Lease) -> Lease:
        """The lease, longer; its `cancel_requested` says whether to stop. Raises LeaseLost."""
        until_ms = self._clock() + round(lease.ttl_s * 1000)
        with self._database.write(lock="jobs") as connection:
            job = self._held(connection, lease)
            self._set(connection, job.id, lease_until_ms=until_ms)
        return replace(lease, until_ms=until_ms, cancel_requested=job.cancel_requested)

    def release(self, lease: Lease) -> Job:
        """The worker stops and gives the job back as it found it: queued, the attempt uncounted. Raises LeaseLost."""
        with self._database.write(lock="jobs") as connection:
            job = self._held(connection, lease)
            return self._set(
                connection, job.id, status="queued", worker="", attempts=job.attempts - 1, due_ms=self._clock()
            )

    def complete(self, lease: Lease, result: Mapping[str, Any] | None = None) -> Job:
        """The job is done. Raises LeaseLost when it is another's by now; then nothing was changed."""
        return self._end(lease, status="succeeded", result=dict(result or {}))

    def fail(self, lease: Lease, error: EspalierError, retry_in_s: float | None = None) -> Job:
        """The attempt failed; with `retry_in_s`, and attempts left, it is queued again. Raises LeaseLost."""
        with self._database.write(lock="jobs") as connection:
            job = self._held(connection, lease)
            if retry_in_s is None or job.attempts >= job.max_attempts:
                return self._end(lease, status="failed", error=error.to_json())
            if job.cancel_requested:
                return self._end(lease, status="cancelled", error=error.to_json())
            due_ms = self._clock() + round(retry_in_s * 1000)
            return self._set(connection, job.id, status="queued", worker="", due_ms=due_ms, error=error.to_json())

    def cancelled(self, lease: Lease) -> Job:
        """The worker stopped because it was asked to. Raises LeaseLost."""
        return self._end(lease, status="cancelled")

    def cancel(self, job_id: str) -> Job:
        """Stop a job: at once when it waits, at the next heartbeat when it runs. Conflict once it has ended."""
        with self._database.write(lock="jobs") as connection:
            job = self.get(job_id)
            if job.status == "queued":
                return self._set(connection, job_id, status="cancelled", ended_ms=self._clock())
            if job.status == "running":
                return self._set(connection, job_id, cancel_requested=1)
        raise Conflict(f"job {job_id} has {job.status} already", hint="only a queued or running job can be cancelled")

    def get(self, job_id: str) -> Job:
        """Raises NotFound."""
        with self._database.read() as connection:
            job = _first(connection, jobs.c.id == job_id)
        if job is None:
            raise NotFound(f"no job {job_id}", hint="`espalier jobs list` shows them")
        return job

    def list(self, *, status: str = "", limit: int = 100) -> Sequence[Job]:
        """The newest first."""
        query = select(jobs).order_by(jobs.c.created_ms.desc(), jobs.c.id.desc()).limit(limit)
        if status:
            query = query.where(jobs.c.status == status)
        with self._database.read() as connection:
            return [_job(row) for row in connection.execute(query).mappings()]

    def _reap(self, connection: Connection, now: int, spared: Collection[str]) -> None:
        """Take back what dead workers hold: queue it again, or end it when it was cancelled or has no attempt left."""
        query = select(jobs).where(jobs.c.status == "running", jobs.c.lease_until_ms < now, jobs.c.id.notin_(spared))
        for job in [_job(row) for row in connection.execute(query).mappings()]:
            if job.cancel_requested:
                self._set(connection, job.id, status="cancelled", ended_ms=now, worker="")
            elif job.attempts >= job.max_attempts:
                error = EspalierError(f"{job.worker} stopped without a word; attempt {job.attempts} was the last")
                self._set(connection, job.id, status="failed", ended_ms=now, error=error.to_json())
            else:
                self._set(connection, job.id, status="queued", worker="", due_ms=now)

    def _held(self, connection: Connection, lease: Lease) -> Job:
        job = _first(connection, jobs.c.id == lease.job.id)
        if job is None or job.status != "running" or job.token != lease.token:
            now = "is gone" if job is None else f"is {job.status}" + (f" with {job.worker}" if job.worker else "")
            raise LeaseLost(f"job {lease.job.id} {now}; the result of {lease.worker} is discarded")
        return job

    def _end(self, lease: Lease, **changes: Any) -> Job:
        with self._database.write(lock="jobs") as connection:
            job = self._held(connection, lease)
            return self._set(connection, job.id, ended_ms=self._clock(), **changes)

    def _set(self, connection: Connection, job_id: str, **changes: Any) -> Job:
        connection.execute(update(jobs).where(jobs.c.id == job_id).values(**changes))
        return _job(connection.execute(select(jobs).where(jobs.c.id == job_id)).mappings().one())


def _first(connection: Connection, condition: Any) -> Job | None:
    row = connection.execute(select(jobs).where(condition)).mappings().first()
    return _job(row) if row else None


def _job(row: Mapping[Any, Any]) -> Job:
    return Job.model_validate(
        {name: row[name] for name in Job.model_fields} | {"cancel_requested": bool(row["cancel_requested"])}
    )
