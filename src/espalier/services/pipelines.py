"""Pipelines: run a recipe of any steps, and check one before it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from espalier.core.errors import InvalidInput
from espalier.core.operations import operation
from espalier.core.types import Run, Spec

if TYPE_CHECKING:
    from espalier.services.context import Context


class RunPipeline(Spec):
    """Which recipe to run, and with which parameters."""

    recipe: str = Field(description="YAML file of a pipeline")
    param: tuple[str, ...] = Field((), description="NAME=VALUE over the recipe's parameters; may be given again")


@operation("pipelines.run", "POST /v1/pipelines/run", shape="job", positional=("recipe",), role="admin")
def run(context: Context, request: RunPipeline) -> Run:
    """Run a pipeline recipe: every step cached by what it depends on, every hit and miss explained.

    A step runs again only when its code, parameters, inputs, files or environment changed. Ctrl-C or a crash loses
    nothing that was finished; the same command goes on from there, a training from its last checkpoint.

    Example:
        espalier run support.yaml --param epochs=3
    """
    from espalier.pipeline.graph import load_pipeline
    from espalier.services.execution import execute_graph

    graph = load_pipeline(context.place(request.recipe))
    return execute_graph(context, graph, parse_parameters(request.param))


class LintPipeline(Spec):
    """Which recipe to check."""

    recipe: str = Field(description="YAML file of a pipeline")
    param: tuple[str, ...] = Field((), description="NAME=VALUE over the recipe's parameters; may be given again")


class PipelineChecked(Spec):
    """What would run, in order."""

    name: str
    steps: tuple[str, ...]


@operation("pipelines.lint", "POST /v1/pipelines/lint", positional=("recipe",))
def lint(context: Context, request: LintPipeline) -> PipelineChecked:
    """Check a pipeline recipe without running it: unknown steps, ports that do not fit, cycles, wrong parameters."""
    from espalier.pipeline.graph import load_pipeline
    from espalier.pipeline.lint import check

    graph = load_pipeline(context.place(request.recipe))
    check(graph, parse_parameters(request.param))
    return PipelineChecked(name=graph.name, steps=tuple(graph.order()))


def parse_parameters(given: tuple[str, ...]) -> dict[str, str]:
    """NAME=VALUE pairs; raises InvalidInput for one without a value."""
    parameters = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidInput(f"--param {text}: no value", hint="write --param epochs=3")
        parameters[name.strip()] = value
    return parameters
