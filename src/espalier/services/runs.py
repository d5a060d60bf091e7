"""What was executed: runs of steps, pipelines and jobs."""

from __future__ import annotations

from itertools import islice
from typing import Any

from pydantic import Field

from espalier.core.operations import operation
from espalier.core.types import Run, RunStatus, Spec
from espalier.services.context import Context


class ListRuns(Spec):
    """Which runs to list, the newest first."""

    status: RunStatus | None = Field(None, description="only runs in this state")
    step: str = Field("", description="only runs of this step or operation, e.g. train.sft@1")
    parent: str = Field("", description="only the runs inside this run; empty = those that stand alone")
    limit: int = Field(20, ge=1, le=1000, description="at most this many")
    before: str = Field("", description="a run id: list those older than it (the next page)")


@operation("runs.list", "GET /v1/runs")
def list_runs(context: Context, request: ListRuns) -> list[Run]:
    """List runs, the newest first.

    Example:
        espalier runs list --status failed
    """
    return list(
        context.store.runs.list(
            status=request.status or "",
            step=request.step,
            parent=request.parent,
            limit=request.limit,
            before=request.before,
        )
    )


class ShowRun(Spec):
    """Which run to show."""

    id: str = Field(description="run id, as `espalier runs list` prints it")


@operation("runs.show", "GET /v1/runs/{id}", positional=("id",))
def show_run(context: Context, request: ShowRun) -> Run:
    """Show one run: what went in, what came out, on which machine, and the error if it failed."""
    return context.store.runs.get(request.id)


class FollowProgress(Spec):
    """Whose events, from where on."""

    id: str = Field(description="run id")
    after: int = Field(0, ge=0, description="how many events were seen already")


class ProgressView(Spec):
    """Events not seen before; ask again with `next`."""

    events: tuple[dict[str, Any], ...]
    next: int


@operation("runs.progress", "GET /v1/runs/{id}/progress", positional=("id",))
def show_progress(context: Context, request: FollowProgress) -> ProgressView:
    """List a run's events from a point on, for those who poll; `jobs logs` streams them."""
    events = list(islice(context.store.runs.events(request.id), request.after, None))
    return ProgressView(
        events=tuple({"kind": event.kind, "at_ms": event.at_ms, **event.data} for event in events),
        next=request.after + len(events),
    )
