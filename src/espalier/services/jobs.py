"""Long work: a job-shaped operation is queued as a job with a run that stands for it, and done by a worker.

A job and its run share their id's tail (`job_1hq...`, `run_1hq...`), so either names both. Knows the queue and the
operations table; what the work is, the operations know. The workers themselves are in services/worker.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, Field

from espalier.core.events import Event
from espalier.core.ids import make_id, now_ms
from espalier.core.operations import Operation, operation
from espalier.core.types import Run, Spec
from espalier.services.context import Context

if TYPE_CHECKING:
    from espalier.store.jobs import Job

_IDLE_S = 2.0

JobStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class JobView(Spec):
    """One job: `attempts` counts how often a worker began it; `run` holds its events and its result."""

    id: str
    operation: str
    status: JobStatus
    run: str
    actor: str
    worker: str = ""
    attempts: int = 0
    created_ms: int
    started_ms: int = 0
    ended_ms: int = 0
    error: dict[str, str] | None = None


class ListJobs(Spec):
    """Which jobs to list, the newest first."""

    status: JobStatus | None = Field(None, description="only jobs in this state")
    limit: int = Field(20, ge=1, le=1000, description="at most this many")


@operation("jobs.list", "GET /v1/jobs")
def list_jobs(context: Context, request: ListJobs) -> list[JobView]:
    """List queued, running and ended jobs, the newest first."""
    return [_view(job) for job in context.store.jobs.list(status=request.status or "", limit=request.limit)]


class NameJob(Spec):
    """Which job."""

    id: str = Field(description="job id, or the id of its run")


@operation("jobs.show", "GET /v1/jobs/{id}", positional=("id",))
def show_job(context: Context, request: NameJob) -> JobView:
    """Show one job."""
    return _view(context.store.jobs.get(job_id(request.id)))


@operation("jobs.cancel", "POST /v1/jobs/{id}/cancel", positional=("id",))
def cancel_job(context: Context, request: NameJob) -> JobView:
    """Ask a job to stop: a queued one at once, a running one at its next progress event. Finished steps are kept."""
    from espalier.services.worker import settle_run

    job = context.store.jobs.cancel(job_id(request.id))
    context.store.audit.append(context.actor, "jobs.cancel", job.id)
    settle_run(context.store, job)
    return _view(job)


class FollowJob(Spec):
    """Whose events to read."""

    id: str = Field(description="run id, or job id")
    follow: bool = Field(True, description="go on until it has ended")


@operation("jobs.logs", "GET /v1/runs/{id}/events", shape="stream", positional=("id",))
def follow_job(context: Context, request: FollowJob) -> Iterator[Event]:
    """Stream a job's or run's events: progress, loss, scores, and how it ended.

    Example:
        espalier jobs logs run_1hq5z8k3m7wq2c9d4e6f
    """
    return context.store.runs.events(run_id(request.id), follow=request.follow, idle_s=_IDLE_S)


def submit_job(context: Context, declared: Operation, request: BaseModel) -> Run:
    """Queue a job-shaped operation; the returned run is what it will fill. Raises what opening the store raises."""
    name = make_id("run")
    run = Run(
        id=name,
        step=declared.name,
        name=declared.summary,
        spec=request.model_dump(mode="json"),
        actor=context.actor,
        created_ms=now_ms(),
    )
    payload = {
        "run": name,
        "role": context.principal.role,
        "request": request.model_dump(mode="json", exclude_unset=True),
    }
    store = context.store
    with store.transaction():
        store.runs.create(run)
        store.jobs.enqueue(declared.name, payload, context.actor, job_id=job_id(name))
    return run


def work_on(context: Context, run: str, watch: Callable[[Event], None]) -> Run | None:
    """Do the queued job of `run` in this process, its events going to `watch` too; None when another worker has it.

    A failure is on the returned run. Ctrl-C ends the run as cancelled and raises Interrupted, which says how to go on.
    """
    from espalier.services.worker import Worker

    return Worker(context).work_on(job_id(run), watch)


def job_id(name: str) -> str:
    """The job's id for a job's or run's id."""
    return "job_" + name.removeprefix("run_").removeprefix("job_")


def run_id(name: str) -> str:
    """The run's id for a job's or run's id."""
    return "run_" + name.removeprefix("run_").removeprefix("job_")


def _view(job: Job) -> JobView:
    return JobView(run=run_id(job.id), **job.model_dump(include=set(JobView.model_fields) - {"run"}))
