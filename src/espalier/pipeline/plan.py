"""What a step of a pipeline needs before it can be looked up or done: its spec, its ingredients, its key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier.core.errors import EspalierError
from espalier.core.events import Emit, Event
from espalier.core.ids import now_ms
from espalier.core.step import Step, check_ports
from espalier.core.types import Run
from espalier.pipeline.catalog import find_step
from espalier.pipeline.closure import CodeScanner
from espalier.pipeline.executors.port import Executor, Stop
from espalier.pipeline.expressions import substitute
from espalier.pipeline.graph import Graph
from espalier.pipeline.key import Ingredients, collect
from espalier.pipeline.result import NodeResult
from espalier.store.store import Store


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


def make_plan(setting: Setting, name: str, inputs: Mapping[str, str], scanner: CodeScanner | None = None) -> Plan:
    """Gather all of a step's ingredients. `scanner`: another than the run's, to look at the code again.

    Raises InvalidInput for ports or a spec that do not fit, NotFound for a file that is not there.
    """
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


def new_run(setting: Setting, plan: Plan, run_id: str) -> Run:
    """The record of a step's execution as it begins."""
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


def step_event(kind: str, result: NodeResult, **more: Any) -> Event:
    """An event about a step: its name, its run, and why it runs or does not."""
    said = {"name": result.name, "step": result.step, "run": result.run, "reason": result.reason}
    return Event(kind, {**said, **more})


def finished_event(result: NodeResult) -> Event:
    """`step.finished`, the same for a hit and for a step that ran."""
    return step_event(
        "step.finished",
        result,
        hit=result.status == "hit",
        outputs=result.outputs,
        metrics=result.metrics,
        cpu_s=result.cpu_s,
        wall_ms=result.wall_ms,
    )
