"""Run a graph for an operation: as the job's own run, with references resolved and what was made given its version.

Whether a recipe is a whole pipeline or one dataset or one training, it runs the same way: cached, resumed, recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.events import Event
from espalier.core.types import Artifact, Run, Spec

if TYPE_CHECKING:
    from espalier.pipeline.graph import Graph
    from espalier.services.catalogue import DatasetVersion
    from espalier.services.context import Context


def execute_graph(context: Context, graph: Graph, parameters: Mapping[str, Any] | None = None) -> Run:
    """Run a pipeline inside the job's run. Raises the first failing step's error; finished steps are kept."""
    from espalier.pipeline.run import run_pipeline

    store = context.store

    def emit(event: Event) -> None:
        made = _publish(context, event.data.get("outputs", {})) if event.kind == "step.finished" else []
        context.emit(event)
        for version in made:
            context.emit(Event("data.version", {"ref": version.ref, "digest": version.digest}))

    result = run_pipeline(
        graph,
        store,
        emit=emit,
        actor=context.actor,
        parameters=parameters,
        resolve=lambda text: resolve_artifact(context, text),
        within=context.run_id,
        stop=context.stopped,
    )
    outputs = {f"{name}.{port}": digest for name, node in result.nodes.items() for port, digest in node.outputs.items()}
    cpu_s = sum(node.cpu_s for node in result.nodes.values())
    return store.runs.update(result.run, outputs=outputs, cpu_s=cpu_s)


def execute_step(
    context: Context, step: str, spec: Spec, *, name: str, folder: Path, inputs: Mapping[str, str] | None = None
) -> Run:
    """Run one step as a pipeline of one; `inputs` maps ports to references, paths in the spec start at `folder`."""
    from espalier.pipeline.graph import Graph

    node = step.rsplit(".", 1)[-1]
    graph = Graph.model_validate(
        {
            "name": f"{step} {name}".strip(),
            "steps": {node: {"step": step, "with": spec.model_dump(mode="json"), "inputs": dict(inputs or {})}},
        }
    )
    return execute_graph(context, graph.rooted_in(folder))


def resolve_artifact(context: Context, text: str) -> str:
    """The artifact digest a reference means: a dataset's, a prompt's, or a model version's adapter.

    Raises InvalidInput for a reference of another kind, NotFound.
    """
    store = context.store
    kind, _, digest = text.partition(":")
    if kind == "sha256":
        return digest
    if kind == "dataset":
        from espalier.services.catalogue import find_dataset

        return find_dataset(store, text).digest
    if kind == "prompt":
        from espalier.services.catalogue import find_prompt_artifact

        return find_prompt_artifact(store, text)
    if kind == "model":
        from espalier.registry.versions import get_version

        version = get_version(store, text)
        if not version.adapter:
            raise NotFound(f"{version.ref} is a base without adapter", hint="name a version that was tuned")
        return version.adapter
    raise InvalidInput(f"{text!r} names no artifact", hint="write dataset:NAME@vN, prompt:NAME@vN or model:NAME@vN")


def _publish(context: Context, outputs: Mapping[str, str]) -> list[DatasetVersion]:
    """Give datasets and prompts among the outputs their version; returns those of datasets."""
    from espalier.services.catalogue import publish_dataset, publish_prompt

    made = []
    for digest in outputs.values():
        artifact: Artifact = context.store.artifacts.get(digest)
        if artifact.kind == "dataset" and "name" in artifact.meta:
            made.append(publish_dataset(context.store, artifact, artifact.meta["name"], context.actor))
        elif artifact.kind == "prompt":
            publish_prompt(context.store, artifact, context.actor)
    return made
