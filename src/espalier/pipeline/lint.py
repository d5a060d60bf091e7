"""What is wrong with a pipeline before anything runs: unknown steps, cycles, ports that do not fit, invalid specs.

Each problem says where (file:line:column) and what to do. Imports the steps it checks, runs none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from espalier.core.errors import EspalierError, InvalidInput, MissingExtra, NotFound, did_you_mean
from espalier.core.faults import list_faults
from espalier.core.step import Step, find_port
from espalier.pipeline.catalog import find_step
from espalier.pipeline.expressions import names_in, parameters_in, substitute
from espalier.pipeline.graph import Graph, Node, bind_parameters, split_source


@dataclass(frozen=True, slots=True)
class Problem:
    """An error stops the run, a warning does not."""

    level: Literal["error", "warning"]
    message: str
    where: str = ""
    hint: str = ""


def lint(graph: Graph, parameters: Mapping[str, Any] | None = None) -> list[Problem]:
    """Every problem of a graph, errors first; empty when it is sound."""
    try:
        bound = bind_parameters(graph, parameters or {})
        graph.order()
    except InvalidInput as error:
        return [_problem(error)]
    known: dict[str, Step] = {}
    problems: list[Problem] = []
    for name, node in graph.steps.items():
        try:
            known[name] = find_step(node.step, graph.folder)
        except (InvalidInput, NotFound, MissingExtra) as error:
            problems.append(_problem(error, graph.where("steps", name, "step")))
    for name, node in graph.steps.items():
        if name in known:
            problems += _check_spec(graph, name, node, known[name], bound)
            problems += _check_ports(graph, name, node, known)
        problems += _check_condition(graph, name, node)
    return problems + list(_unused_parameters(graph))


def check(graph: Graph, parameters: Mapping[str, Any] | None = None) -> None:
    """Raise InvalidInput (or the one error's own class) when `lint` finds an error; all are listed, the first leads."""
    errors = [problem for problem in lint(graph, parameters) if problem.level == "error"]
    if errors:
        more = [f"{problem.where}: {problem.message}" for problem in errors[1:6]]
        raise InvalidInput("\n".join([errors[0].message, *more]), where=errors[0].where, hint=errors[0].hint)


def _check_spec(graph: Graph, name: str, node: Node, step: Step, parameters: Mapping[str, Any]) -> Iterator[Problem]:
    unresolved = list(_unresolved(graph, ("steps", name, "with"), node.with_, parameters))
    if unresolved:
        yield from unresolved
        return
    given = substitute(node.with_, parameters)
    try:
        step.spec.model_validate(given)
    except ValidationError as error:
        for fault in list_faults(error, given, step.spec):
            where = graph.where("steps", name, "with", *fault.place)
            yield Problem("error", f"{name}: {fault.tell('with')}", where, fault.hint)


def _unresolved(
    graph: Graph, place: tuple[str | int, ...], value: Any, parameters: Mapping[str, Any]
) -> Iterator[Problem]:
    """References inside `value` that lead nowhere, each at its own line."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _unresolved(graph, (*place, key), item, parameters)
        return
    try:
        substitute(value, parameters)
    except InvalidInput as error:
        yield _problem(error, graph.where(*place))


def _check_ports(graph: Graph, name: str, node: Node, known: Mapping[str, Step]) -> Iterator[Problem]:
    step = known[name]
    for port, given in node.inputs.items():
        where = graph.where("steps", name, "inputs", port)
        kind = find_port(step.inputs, port)
        if kind is None:
            yield Problem("error", f"{step.id} has no input {port!r}", where, did_you_mean(port, step.inputs))
            continue
        source, output = split_source(given)
        if source not in known:
            continue
        made = known[source].outputs
        if output not in made:
            message = f"{source} ({known[source].id}) has no output {output!r}"
            yield Problem("error", message, where, did_you_mean(output, made))
        elif not _fits(made[output], kind):
            message = f"{name}.{port} takes a {kind}, {given} is a {made[output]}"
            yield Problem("error", message, where, "connect an output of the same kind")
    for port, wanted in step.inputs.items():
        if port not in node.inputs and not wanted.endswith("?"):
            where = graph.where("steps", name, "inputs")
            yield Problem(
                "error", f"{name}: {step.id} needs input {port!r} ({wanted})", where, f"add `{port}: step.output`"
            )


def _check_condition(graph: Graph, name: str, node: Node) -> Iterator[Problem]:
    where = graph.where("steps", name, "when")
    for read in sorted(names_in(node.when)):
        root, _, rest = read.partition(".")
        if root == "parameters" and rest not in graph.parameters:
            yield Problem("error", f"there is no parameter {rest!r}", where, did_you_mean(rest, graph.parameters))


def _unused_parameters(graph: Graph) -> Iterator[Problem]:
    used = {name for node in graph.steps.values() for name in parameters_in(node.with_)}
    for node in graph.steps.values():
        used |= {name.removeprefix("parameters.") for name in names_in(node.when) if name.startswith("parameters.")}
    for name in graph.parameters:
        if name not in used:
            where = graph.where("parameters", name)
            yield Problem(
                "warning", f"parameter {name!r} is used nowhere", where, f"write ${{parameters.{name}}} or drop it"
            )


def _fits(made: str, wanted: str) -> bool:
    made, wanted = made.removesuffix("?"), wanted.removesuffix("?")
    return wanted in (made, "*")


def _problem(error: EspalierError, where: str = "") -> Problem:
    return Problem("error", error.message, error.where or where, error.hint)
