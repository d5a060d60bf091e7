"""`run_pipeline`: every step in order, each a hit or done anew, the finished ones kept whatever happens next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

from espalier.core.errors import EspalierError, Interrupted, InvalidInput
from espalier.core.events import Emit, Event, ignore
from espalier.core.ids import make_id, now_ms
from espalier.core.step import find_port
from espalier.core.types import Run
from espalier.pipeline.catalog import find_step
from espalier.pipeline.closure import CodeScanner
from espalier.pipeline.environment import find_commit
from espalier.pipeline.executors.local import LocalExecutor
from espalier.pipeline.executors.port import Executor, Stop, never_stop
from espalier.pipeline.expressions import holds, names_in
from espalier.pipeline.graph import Graph, bind_parameters, split_source
from espalier.pipeline.lint import check
from espalier.pipeline.node import run_node
from espalier.pipeline.plan import Setting
from espalier.pipeline.recovery import PIPELINE, bury_dead_runs, run_lock
from espalier.pipeline.result import NodeResult, PipelineResult
from espalier.store.store import Store

_GO_ON = "the same command goes on from here: finished steps are kept"

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
    within: str = "",
    retry_s: float = 1.0,
) -> PipelineResult:
    """Run the graph to its end; what is done already is found by its key and not done again.

    `emit` sees every event of every step; `resolve` turns references among the inputs into digests; `stop` is asked now
    and then. `within` names a running run (a job's) to be the steps' parent, whose status and log its owner keeps;
    without it the pipeline makes a run of its own. Raises what `lint.check` finds, the first failing step's error, or
    Interrupted; finished steps are recorded by then.
    """
    check(graph, parameters)
    bound = bind_parameters(graph, parameters or {})
    bury_dead_runs(store)
    run_id = within or make_id("run")
    lock = run_lock(store, run_id)
    lock.acquire()
    try:
        spec = {"graph": graph.dump(), "parameters": bound}
        if within:
            store.runs.update(within, name=graph.name, spec=spec)
        else:
            emit = _begin(store, run_id, graph.name, spec, actor, emit)
        executor = executor or LocalExecutor(store)
        scanner = CodeScanner(store.facts)
        setting = Setting(
            graph, bound, store, executor, scanner, run_id, actor, emit, stop, retry_s, cache(find_commit)
        )
        with nullcontext() if within else _account(setting):
            return _run_all(setting, resolve)
    finally:
        lock.release()


def _run_all(setting: Setting, resolve: Resolve) -> PipelineResult:
    result = PipelineResult(setting.parent)
    for name in setting.graph.order():
        if setting.stop():
            raise Interrupted("stopped", hint=_GO_ON)
        inputs = _find_inputs(setting, name, result, resolve)
        skip = _reason_to_skip(setting, name, inputs, result)
        if skip:
            node = NodeResult(name, setting.graph.steps[name].step, "skipped", skip)
            setting.emit(Event("step.skipped", {"name": name, "step": node.step, "reason": skip}))
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
        if not digest and not (find_port(ports, port) or "").endswith("?"):
            return f"its input {port} ({node.inputs[port]}) was not made"
    read = {dotted.split(".")[1] for dotted in names_in(node.when) if dotted.startswith("steps.")}
    for source in sorted(read | set(node.needs)):
        if result.nodes[source].status == "skipped":
            return f"it needs {source}, which was skipped"
    metrics = {other: done.metrics for other, done in result.nodes.items()}
    return "" if holds(node.when, setting.parameters, metrics) else f"not so: {node.when}"


def _begin(store: Store, run_id: str, name: str, spec: dict[str, Any], actor: str, emit: Emit) -> Emit:
    """Record the pipeline's own run; returns an `Emit` that also keeps its log."""
    now = now_ms()
    run = Run(
        id=run_id, step=PIPELINE, name=name, spec=spec, status="running", actor=actor, created_ms=now, started_ms=now
    )
    store.runs.create(run)
    log = store.runs.emitter(run_id)

    def tell(event: Event) -> None:
        log(event)
        emit(event)

    return tell


@contextmanager
def _account(setting: Setting) -> Iterator[None]:
    """Say that the pipeline's own run began, and how it ended."""
    graph = setting.graph
    setting.emit(Event("run.started", {"run": setting.parent, "pipeline": graph.name, "steps": graph.order()}))
    try:
        yield
    except (KeyboardInterrupt, Interrupted) as error:
        _end(setting, "cancelled", Interrupted("stopped", hint=_GO_ON))
        if isinstance(error, Interrupted):
            raise
        raise Interrupted("stopped", hint=_GO_ON) from None
    except EspalierError as error:
        _end(setting, "failed", error)
        raise
    except BaseException as error:
        _end(setting, "failed", EspalierError(f"{type(error).__name__}: {error}"))
        raise
    _end(setting, "succeeded", None)


def _end(setting: Setting, status: str, error: EspalierError | None) -> None:
    runs, said = setting.store.runs, error.to_json() if error else None
    cpu_s = sum(run.cpu_s for run in runs.list(parent=setting.parent, limit=1000))
    setting.emit(Event("run.finished", {"run": setting.parent, "status": status, "error": said}))
    runs.update(setting.parent, status=status, ended_ms=now_ms(), cpu_s=round(cpu_s, 3), error=said)
