"""Doing a step: attempts, and the commit of what it made.

Results, cache row and lineage edges are recorded in one transaction, after their bytes are on disk: a crash before it
leaves nothing, after it everything.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace

from espalier.core.errors import EspalierError, Interrupted
from espalier.core.events import Emit, Event
from espalier.core.ids import make_id, now_ms
from espalier.pipeline.closure import CodeScanner
from espalier.pipeline.environment import describe_environment
from espalier.pipeline.executors.port import Outcome, Stop, Task
from espalier.pipeline.plan import Plan, Setting, finished_event, make_plan, new_run, step_event
from espalier.pipeline.result import NodeResult
from espalier.store.cache import CacheRow

_RETRYABLE = {"internal", "rate_limited", "unavailable"}  # what a user must mend is not tried again
_SLOWEST_RETRY_S = 60.0


def execute_plan(setting: Setting, plan: Plan, reason: str, locks: tuple[int, ...] = ()) -> NodeResult:
    """Run a step that has to be, and record what it made. Raises its error once that is recorded, Interrupted.

    `locks` are descriptors the work holds as long as it lives.
    """
    store, began = setting.store, time.monotonic()
    run = new_run(setting, plan, make_id("run"))
    environment = describe_environment(plan.ingredients.packages, setting.find_commit(setting.graph.folder))
    store.runs.create(run.model_copy(update={"environment": environment}))
    result = NodeResult(plan.name, plan.step.id, "ran", reason, run.id)
    try:
        setting.emit(step_event("step.started", result))
        outcome = _attempt(setting, plan, run.id, locks)
        result.cpu_s, result.metrics = outcome.cpu_s, outcome.metrics
        if outcome.error is not None:
            raise outcome.error
        _commit(setting, plan, run.id, outcome)
    except BaseException as error:
        _record_failure(setting, result, error)
        raise
    result.outputs = {port: artifact.digest for port, artifact in outcome.outputs.items()}
    result.wall_ms = round((time.monotonic() - began) * 1000)
    shutil.rmtree(store.workspace.scratch_folder(plan.key), ignore_errors=True)
    setting.emit(finished_event(result))
    return result


def _attempt(setting: Setting, plan: Plan, run_id: str, locks: tuple[int, ...]) -> Outcome:
    """Execute the task, again after a crash while retries are left. CPU time of all attempts counts."""
    store, node = setting.store, setting.graph.steps[plan.name]
    task = Task(
        run=run_id,
        key=plan.key,
        step=node.step,
        spec=plan.spec,
        seed=plan.ingredients.seed,
        inputs={port: store.artifacts.get(digest) for port, digest in plan.inputs.items()},
        outputs=plan.step.outputs,
        folder=setting.graph.folder,
        workspace=store.workspace.root,
        actor=setting.actor,
        pass_fds=locks,
    )
    emit, spent_s = _tee(setting, plan.name, run_id), 0.0
    for attempt in range(node.retries + 1):
        outcome = setting.executor.execute(task, emit, setting.stop)
        spent_s += outcome.cpu_s
        if outcome.error is None or outcome.error.code not in _RETRYABLE or attempt == node.retries:
            break
        pause_s = min(setting.retry_s * 2**attempt, _SLOWEST_RETRY_S)
        emit(Event("step.retry", {"attempt": attempt + 1, "pause_s": pause_s, "error": outcome.error.message}))
        _pause(pause_s, setting.stop)
    return replace(outcome, cpu_s=spent_s)


def _commit(setting: Setting, plan: Plan, run_id: str, outcome: Outcome) -> None:
    store = setting.store
    # Code or files edited while the step ran: whatever it read, the key may not stand for it.
    steady = make_plan(setting, plan.name, plan.inputs, CodeScanner(store.facts)).key == plan.key
    outputs = {port: artifact.digest for port, artifact in outcome.outputs.items()}
    with store.transaction():
        for artifact in outcome.outputs.values():
            store.artifacts.add(artifact)
            for role, parent in plan.inputs.items():
                if parent != artifact.digest:  # a step that changed nothing is no ancestor of its input
                    store.artifacts.link(artifact.digest, parent, role)
        if steady and not plan.step.side_effect:
            store.cache.put(
                CacheRow(
                    key=plan.key,
                    pipeline=setting.graph.name,
                    node=plan.name,
                    run=run_id,
                    outputs=outputs,
                    metrics=outcome.metrics,
                    ingredients=plan.ingredients.model_dump(),
                )
            )
        store.runs.update(
            run_id,
            status="succeeded",
            ended_ms=now_ms(),
            outputs=outputs,
            metrics=outcome.metrics,
            cpu_s=outcome.cpu_s,
        )
    if not steady:
        message = f"{plan.name}: its code or files changed while it ran; the result is kept, but will not be reused"
        setting.emit(Event("log", {"level": "warning", "message": message}))


def _record_failure(setting: Setting, result: NodeResult, error: BaseException) -> None:
    known = error if isinstance(error, EspalierError) else EspalierError(f"{type(error).__name__}: {error}")
    stopped = isinstance(error, Interrupted | KeyboardInterrupt)
    status = "cancelled" if stopped else "failed"
    changes = {"status": status, "ended_ms": now_ms(), "cpu_s": result.cpu_s, "metrics": result.metrics}
    setting.store.runs.update(result.run, **changes, error=known.to_json())
    setting.emit(step_event("step.failed", result, error=known.to_json()))


def _tee(setting: Setting, name: str, run_id: str) -> Emit:
    """A step's events go to its own log as they are, and on to the pipeline's marked with whose they are."""
    own = setting.store.runs.emitter(run_id)

    def emit(event: Event) -> None:
        own(event)
        setting.emit(replace(event, data={"node": name, "run": run_id, **event.data}))

    return emit


def _pause(seconds: float, stop: Stop) -> None:
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        if stop():
            raise Interrupted("stopped before a retry", hint="run the same command again")
        time.sleep(min(left, 0.2))
