"""Long work, seen from outside: which jobs there are, how they go, and stopping one.

How a job is queued is in services/queue.py, how it is done in services/worker.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from espalier.core.events import Event
from espalier.core.operations import operation
from espalier.core.types import Spec
from espalier.services.context import Context
from espalier.services.queue import job_id, run_id
from espalier.services.worker import settle_run

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


@operation("jobs.cancel", "POST /v1/jobs/{id}/cancel", positional=("id",), role="admin")
def cancel_job(context: Context, request: NameJob) -> JobView:
    """Ask a job to stop: a queued one at once, a running one at its next progress event. Finished steps are kept."""
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


def _view(job: Job) -> JobView:
    return JobView(run=run_id(job.id), **job.model_dump(include=set(JobView.model_fields) - {"run"}))
