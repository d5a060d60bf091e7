"""`run_pipeline`: every step in order, each a hit or done anew, the finished ones kept whatever happens next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from espalier.core.errors import Conflict, EspalierError, Interrupted, InvalidInput, NotFound
from espalier.core.events import Emit, Event, ignore
from espalier.core.ids import make_id, now_ms
from espalier.core.types import Run
from espalier.pipeline.catalog import find_step
from espalier.pipeline.closure import CodeScanner
from espalier.pipeline.executors.local import LocalExecutor
from espalier.pipeline.executors.port import Executor, Stop, never_stop
from espalier.pipeline.expressions import holds, names_in
from espalier.pipeline.graph import Graph, bind_parameters, split_source
from espalier.pipeline.lint import check
from espalier.pipeline.node import Setting, run_node
from espalier.pipeline.recovery import bury_dead_runs, run_lock
from espalier.pipeline.result import NodeResult, PipelineResult
from espalier.store.store import Store

Resolve = Callable[[str], str]  # "dataset:support@v4" -> an artifact's digest


def _resolve_nothing(given: str) -> str:
    raise InvalidInput(f"{given!r} cannot be resolved here", hint="write step.output or sha256:<digest>")


def run_pipeline(
    graph: Graph,
    store: Store,
    *,
    emit: Emit = ignore,
    actor: str = "local",
    parameters: Mapping[str, Any] | None = None,
    executor: Executor | None = None,
    resolve: Resolve = _resolve_nothing,
    stop: Stop = never_stop,
    run_id: str = "",
    within: str = "",
    retry_s: float = 1.0,
) -> PipelineResult:
    """Run the graph to its end; what is done already is found by its key and not done again.

    `emit` sees every event of every step (also kept in the run's log); `resolve` turns references among the inputs
    into digests; `stop` is asked now and then. `within` names a running run to be the steps' parent, whose status and
    log its owner keeps (a job's). Raises what `lint.check` finds, the first failing step's error, or Interrupted;
    finished steps are recorded by then.
    """
    check(graph, parameters)
    bound = bind_parameters(graph, parameters or {})
    bury_dead_runs(store)
    run_id = within or run_id or make_id("run")
    lock = run_lock(store, run_id)
    lock.acquire()
    if within:
        store.runs.update(within, step="pipeline", name=graph.name, spec=_spec_of(graph, bound))
        tell = emit
    else:
        _begin(graph, store, bound, actor, run_id)
        tell = _log_and_tell(store.runs.emitter(run_id), emit)
    executor = executor or LocalExecutor(store)
    scanner = CodeScanner(store.facts)
    setting = Setting(graph, bound, store, executor, scanner, run_id, actor, tell, stop, retry_s, owned=not within)
    try:
        tell(Event("run.started", {"run": run_id, "pipeline": graph.name, "steps": graph.order(), "parameters": bound}))
        result = _run_all(setting, resolve)
    except KeyboardInterrupt:
        stopped = Interrupted("stopped", hint="the same command goes on from here: finished steps are kept")
        if within:
            raise
        _end(setting, "cancelled", error=stopped)
        raise stopped from None
    except EspalierError as error:
        _end(setting, "cancelled" if isinstance(error, Interrupted) else "failed", error=error)
        raise
    except BaseException as error:
        _end(setting, "failed", error=EspalierError(f"{type(error).__name__}: {error}"))
        raise
    else:
        _end(setting, "succeeded", cpu_s=sum(node.cpu_s for node in result.nodes.values()))
    finally:
        lock.release()
    return result


def _run_all(setting: Setting, resolve: Resolve) -> PipelineResult:
    result = PipelineResult(setting.parent)
    for name in setting.graph.order():
        if setting.stop():
            raise Interrupted("stopped", hint="the same command goes on from here: finished steps are kept")
        inputs = _find_inputs(setting, name, result, resolve)
        skip = _reason_to_skip(setting, name, inputs, result)
        if skip:
            node = NodeResult(name, setting.graph.steps[name].step, "skipped", skip)
            setting.emit(Event("step.skipped", {"node": name, "step": node.step, "reason": skip}))
        else:
            try:
                node = run_node(setting, name, {port: digest for port, digest in inputs.items() if digest})
            except EspalierError as error:
                raise type(error)(f"step {name}: {error.message}", hint=error.hint, where=error.where) from error
        result.nodes[name] = node
    return result


def _find_inputs(setting: Setting, name: str, result: PipelineResult, resolve: Resolve) -> dict[str, str]:
    """Port -> digest; empty when the step it comes from was skipped or left an optional output out."""
    found = {}
    for port, given in setting.graph.steps[name].inputs.items():
        source, output = split_source(given)
        if source:
            found[port] = result.nodes[source].outputs.get(output, "")
        else:
            found[port] = output.removeprefix("sha256:") if output.startswith("sha256:") else resolve(output)
    return found


def _reason_to_skip(setting: Setting, name: str, inputs: Mapping[str, str], result: PipelineResult) -> str:
    node = setting.graph.steps[name]
    ports = find_step(node.step, setting.graph.folder).inputs
    for port, digest in inputs.items():
        if not digest and not ports[port].endswith("?"):
            return f"its input {port} ({node.inputs[port]}) was not made"
    read = {dotted.split(".")[1] for dotted in names_in(node.when) if dotted.startswith("steps.")}
    for source in sorted(read | set(node.needs)):
        if result.nodes[source].status == "skipped":
            return f"it needs {source}, which was skipped"
    metrics = {other: done.metrics for other, done in result.nodes.items()}
    return "" if holds(node.when, setting.parameters, metrics) else f"not so: {node.when}"


def _begin(graph: Graph, store: Store, parameters: Mapping[str, Any], actor: str, run_id: str) -> None:
    """Record the run, or take over one that was queued under this id."""
    now = now_ms()
    run = Run(
        id=run_id,
        step="pipeline",
        name=graph.name,
        spec=_spec_of(graph, parameters),
        status="running",
        actor=actor,
        created_ms=now,
        started_ms=now,
    )
    try:
        queued = store.runs.get(run_id)
    except NotFound:
        store.runs.create(run)
    else:
        if queued.status != "queued":
            raise Conflict(f"run {run_id} has {queued.status} already", hint="start a new one")
        store.runs.update(run_id, **run.model_dump(exclude={"id", "created_ms", "parent"}))


def _spec_of(graph: Graph, parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {"graph": graph.dump(), "parameters": dict(parameters)}


def _log_and_tell(log: Emit, emit: Emit) -> Emit:
    def tell(event: Event) -> None:
        log(event)
        emit(event)

    return tell


def _end(setting: Setting, status: str, *, error: EspalierError | None = None, cpu_s: float = 0.0) -> None:
    if not setting.owned:
        return
    said = error.to_json() if error else None
    setting.store.runs.update(setting.parent, status=status, ended_ms=now_ms(), cpu_s=cpu_s, error=said)
    setting.emit(Event("run.finished", {"run": setting.parent, "status": status, "error": said}))
