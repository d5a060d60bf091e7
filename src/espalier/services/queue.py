"""Long work: a job-shaped operation is queued as a job, with a run that stands for it and holds its events and results.

A job and its run share their id's tail (`job_1hq...`, `run_1hq...`), so either names both. What the work is, the
operation knows; who does it is services/worker.py.
"""

from __future__ import annotations

from pydantic import BaseModel

from espalier.core.ids import make_id, now_ms
from espalier.core.operations import Operation
from espalier.core.types import Run
from espalier.services.context import Context


def submit_job(context: Context, declared: Operation, request: BaseModel, *, head_start_s: float = 0) -> Run:
    """Queue a job-shaped operation; the returned run is what it will fill. Raises what opening the store raises.

    For `head_start_s` only who asks for the job by name gets it: the process that means to do the job itself, in its
    own environment, and not the worker of a server that happens to look at the same workspace just now.
    """
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
        "confined": context.confined,
        "request": request.model_dump(mode="json", exclude_unset=True),
    }
    store = context.store
    with store.transaction():
        store.runs.create(run)
        store.jobs.enqueue(declared.name, payload, context.actor, delay_s=head_start_s, job_id=job_id(name))
    return run


def job_id(name: str) -> str:
    """The job's id for a job's or run's id."""
    return "job_" + name.removeprefix("run_").removeprefix("job_")


def run_id(name: str) -> str:
    """The run's id for a job's or run's id."""
    return "run_" + name.removeprefix("run_").removeprefix("job_")
