"""One step of a pipeline: its key, the hit or the reason of the miss, the execution, and the commit.

Results, cache row and lineage edges are recorded in one transaction, after their bytes are on disk: a crash before it
leaves nothing, after it everything.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from espalier.core.errors import EspalierError, Interrupted
from espalier.core.events import Emit, Event
from espalier.core.ids import make_id, now_ms
from espalier.core.step import Step, check_ports
from espalier.core.types import Run
from espalier.pipeline.catalog import find_step
from espalier.pipeline.closure import CodeScanner
from espalier.pipeline.environment import describe_environment
from espalier.pipeline.executors.port import Executor, Outcome, Stop, Task
from espalier.pipeline.explain import explain_hit, explain_miss
from espalier.pipeline.expressions import substitute
from espalier.pipeline.graph import Graph
from espalier.pipeline.key import Ingredients, collect
from espalier.pipeline.locks import FileLock
from espalier.pipeline.result import NodeResult
from espalier.store.cache import CacheRow
from espalier.store.store import Store

_RETRYABLE = {"internal", "rate_limited", "unavailable"}  # what a user must mend is not tried again
_SLOWEST_RETRY_S = 60.0


@dataclass(frozen=True, slots=True)
class Setting:
    """What all steps of one pipeline run share."""

    graph: Graph
    parameters: Mapping[str, Any]
    store: Store
    executor: Executor
    scanner: CodeScanner
    parent: str  # the pipeline's run
    actor: str
    emit: Emit
    stop: Stop
    retry_s: float  # pause before the first retry; doubles with each
    find_commit: Callable[[Path], str]  # asked once per run: it starts a process


@dataclass(frozen=True, slots=True)
class Plan:
    """A step that is ready: its inputs exist and its key is known."""

    name: str
    step: Step
    spec: dict[str, Any]
    inputs: Mapping[str, str]
    ingredients: Ingredients
    key: str


def run_node(setting: Setting, name: str, inputs: Mapping[str, str]) -> NodeResult:
    """Do the step `name` with `inputs` (port -> digest), or find it done. Raises the step's error, Interrupted."""
    plan = _plan(setting, name, inputs)
    if plan.step.side_effect:
        return _execute(setting, plan, "side effect: done every time, idempotent by its key")
    found, reason = _look_up(setting, plan)
    if found is not None:
        return _reuse(setting, plan, found)
    lock = FileLock(setting.store.workspace.scratch_folder(plan.key).with_suffix(".lock"))
    lock.acquire(setting.stop)
    try:
        found, _ = _look_up(setting, plan)  # whoever held the lock may have done it meanwhile
        if found is not None:
            return _reuse(setting, plan, found)
        return _execute(setting, plan, reason, (lock.descriptor,))
    finally:
        lock.release()


def _plan(setting: Setting, name: str, inputs: Mapping[str, str], scanner: CodeScanner | None = None) -> Plan:
    graph, node = setting.graph, setting.graph.steps[name]
    step = find_step(node.step, graph.folder)
    check_ports(step, inputs)
    spec = step.spec.model_validate(substitute(node.with_, setting.parameters))
    try:
        ingredients = collect(
            step,
            spec,
            inputs,
            seed=graph.seed if node.seed is None else node.seed,
            folder=graph.folder,
            lock=graph.lock,
            scanner=scanner or setting.scanner,
            facts=setting.store.facts,
        )
    except EspalierError as error:
        raise type(error)(error.message, hint=error.hint, where=graph.where("steps", name, "with")) from error
    return Plan(name, step, ingredients.spec, inputs, ingredients, ingredients.key())


def _look_up(setting: Setting, plan: Plan) -> tuple[CacheRow | None, str]:
    """The cached row that can be used, or None and why not."""
    cache, artifacts = setting.store.cache, setting.store.artifacts
    row = cache.find(plan.key)
    if row is None:
        latest = cache.latest(setting.graph.name, plan.name)
        return None, explain_miss(plan.ingredients, Ingredients.model_validate(latest.ingredients) if latest else None)
    for port, digest in row.outputs.items():
        fault = artifacts.check(digest)
        if fault:
            return None, f"miss: output {port} of {row.run} is damaged: {fault}"
    return row, ""


def _reuse(setting: Setting, plan: Plan, row: CacheRow) -> NodeResult:
    result = NodeResult(
        plan.name, plan.step.id, "hit", explain_hit(row.run), make_id("run"), dict(row.outputs), dict(row.metrics)
    )
    run = _new_run(setting, plan, result.run)
    with setting.store.transaction():
        setting.store.cache.use(plan.key, setting.graph.name, plan.name)
        setting.store.runs.create(
            run.model_copy(
                update={
                    "status": "succeeded",
                    "ended_ms": run.started_ms,
                    "outputs": result.outputs,
                    "metrics": result.metrics,
                    "cache_hit_of": row.run,
                }
            )
        )
    setting.emit(_finished(result))
    return result


def _execute(setting: Setting, plan: Plan, reason: str, locks: tuple[int, ...] = ()) -> NodeResult:
    store, began = setting.store, time.monotonic()
    run = _new_run(setting, plan, make_id("run"))
    environment = describe_environment(plan.ingredients.packages, setting.find_commit(setting.graph.folder))
    store.runs.create(run.model_copy(update={"environment": environment}))
    result = NodeResult(plan.name, plan.step.id, "ran", reason, run.id)
    setting.emit(_event("step.started", result))
    try:
        outcome = _attempt(setting, plan, run.id, locks)
        if outcome.error is not None:
            raise outcome.error
        result.cpu_s, result.metrics = outcome.cpu_s, outcome.metrics
        _commit(setting, plan, run.id, outcome)
    except BaseException as error:
        _record_failure(setting, result, error)
        raise
    result.outputs = {port: artifact.digest for port, artifact in outcome.outputs.items()}
    result.wall_ms = round((time.monotonic() - began) * 1000)
    shutil.rmtree(store.workspace.scratch_folder(plan.key), ignore_errors=True)
    setting.emit(_finished(result))
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
    steady = _plan(setting, plan.name, plan.inputs, CodeScanner(store.facts)).key == plan.key
    outputs = {port: artifact.digest for port, artifact in outcome.outputs.items()}
    with store.transaction():
        for artifact in outcome.outputs.values():
            store.artifacts.add(artifact)
            for role, parent in plan.inputs.items():
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
    setting.store.runs.update(result.run, status=status, ended_ms=now_ms(), error=known.to_json())
    setting.emit(_event("step.failed", result, error=known.to_json()))


def _new_run(setting: Setting, plan: Plan, run_id: str) -> Run:
    now = now_ms()
    return Run(
        id=run_id,
        step=plan.step.id,
        name=plan.name,
        spec=plan.spec,
        inputs=dict(plan.inputs),
        status="running",
        parent=setting.parent,
        actor=setting.actor,
        created_ms=now,
        started_ms=now,
        cache_key=plan.key,
    )


def _tee(setting: Setting, name: str, run_id: str) -> Emit:
    """A step's events go to its own log as they are, and on to the pipeline's marked with whose they are."""
    own = setting.store.runs.emitter(run_id)

    def emit(event: Event) -> None:
        own(event)
        setting.emit(replace(event, data={"node": name, "run": run_id, **event.data}))

    return emit


def _event(kind: str, result: NodeResult, **more: Any) -> Event:
    said = {"name": result.name, "step": result.step, "run": result.run, "reason": result.reason}
    return Event(kind, {**said, **more})


def _finished(result: NodeResult) -> Event:
    return _event(
        "step.finished",
        result,
        hit=result.status == "hit",
        outputs=result.outputs,
        metrics=result.metrics,
        cpu_s=result.cpu_s,
        wall_ms=result.wall_ms,
    )


def _pause(seconds: float, stop: Callable[[], bool]) -> None:
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        if stop():
            raise Interrupted("stopped before a retry", hint="run the same command again")
        time.sleep(min(left, 0.2))
