"""The typed graph a pipeline is: what YAML (`load_pipeline`) and Python (`pipeline/builder.py`) both become.

    name: support
    parameters: {epochs: 3}
    steps:
      dataset: {step: data.build, with: {source: tickets/}}
      tuned:
        step: train.sft
        with: {epochs: "${parameters.epochs}"}     # keeps the parameter's type
        inputs: {dataset: dataset.dataset}         # port: step.output, or sha256:<digest> of an artifact
        when: parameters.epochs > 0 and steps.dataset.examples >= 100

Knows the shape only; whether the steps exist and their ports fit is `pipeline/lint.py`'s.
"""

from __future__ import annotations

import graphlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr, field_validator

from espalier.core.errors import InvalidInput, did_you_mean
from espalier.core.recipefile import check_recipe, position_of, read_yaml
from espalier.core.types import Spec
from espalier.pipeline.expressions import names_in

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Node(Spec):
    """One step of a pipeline. `with` is its spec; `needs` orders it after steps it takes nothing from."""

    step: str = Field(description="name of a step, e.g. train.sft, or module:attribute of your own")
    with_: dict[str, Any] = Field(default_factory=dict, alias="with", description="the step's spec")
    inputs: dict[str, str] = Field(default_factory=dict, description="port: step.output, or sha256:<digest>")
    needs: tuple[str, ...] = Field((), description="steps that must be done before")
    when: str = Field("", description="condition on parameters.NAME and steps.STEP.METRIC; empty = always")
    retries: int = Field(0, ge=0, le=10, description="further attempts after a crash or a rate limit")
    seed: int | None = Field(None, description="instead of the pipeline's")

    @field_validator("when")
    @classmethod
    def _check_condition(cls, when: str) -> str:
        try:
            names_in(when)
        except InvalidInput as error:
            raise ValueError(error.message) from None
        return when

    def sources(self) -> set[str]:
        """Names of the steps this one depends on."""
        given = {source.split(".", 1)[0] for source in self.inputs.values() if ":" not in source}
        measured = {name.split(".")[1] for name in names_in(self.when) if name.startswith("steps.")}
        return given | measured | set(self.needs)


@dataclass(frozen=True, slots=True)
class Origin:
    """The folder a graph's paths are relative to; the file it was read from, if any, and that with line numbers."""

    folder: Path
    path: Path | None = None
    data: Any = None


class Graph(Spec):
    """A pipeline. Paths in its specs are relative to the folder of its file."""

    name: str
    description: str = ""
    seed: int = 0
    lock: str = Field("", description="a lock file; when its content changes, every step runs again")
    parameters: dict[str, Any] = {}
    steps: dict[str, Node] = Field(min_length=1)
    _origin: Origin | None = PrivateAttr(None)

    @field_validator("steps")
    @classmethod
    def _check_names(cls, steps: dict[str, Node]) -> dict[str, Node]:
        for name in steps:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no step name: use small letters, digits and underscores")
        return steps

    @property
    def folder(self) -> Path:
        """The folder paths are relative to."""
        return self._origin.folder.resolve() if self._origin else Path.cwd()

    def rooted_in(self, folder: Path) -> Graph:
        """The same graph with paths relative to `folder`: for one that no file holds."""
        graph = self.model_copy()
        graph._origin = Origin(folder)
        return graph

    def where(self, *location: str | int) -> str:
        """`file:line:column` of a part, e.g. `where("steps", "train", "with")`; without a file, its dotted name."""
        if self._origin is None or self._origin.path is None:
            return ".".join(map(str, location))
        line, column = position_of(self._origin.data, location)
        return f"{self._origin.path}:{line}:{column}"

    def order(self) -> list[str]:
        """Step names, each after those it depends on. Raises InvalidInput for a cycle or an unknown step."""
        sources = {name: self._known_sources(name) for name in self.steps}
        try:
            return list(graphlib.TopologicalSorter(sources).static_order())
        except graphlib.CycleError as error:
            cycle = list(reversed(error.args[1]))
            raise InvalidInput(
                f"steps wait for each other: {' -> '.join(cycle)}",
                where=self.where("steps", cycle[0]),
                hint="take one of these inputs or needs away",
            ) from None

    def dump(self) -> dict[str, Any]:
        """The graph as JSON, from which `Graph.model_validate` makes it again."""
        return self.model_dump(mode="json", by_alias=True)

    def _known_sources(self, name: str) -> list[str]:
        sources = sorted(self.steps[name].sources())
        for source in sources:
            if source not in self.steps:
                raise InvalidInput(
                    f"{name} depends on {source!r}, which is no step here",
                    where=self._place_of(name, source),
                    hint=did_you_mean(source, self.steps),
                )
        return sources

    def _place_of(self, name: str, source: str) -> str:
        node = self.steps[name]
        for port, given in node.inputs.items():
            if given.split(".", 1)[0] == source:
                return self.where("steps", name, "inputs", port)
        part = "needs" if source in node.needs else "when"
        return self.where("steps", name, part)


def load_pipeline(path: Path) -> Graph:
    """Read a pipeline from YAML. Raises InvalidInput with file:line:column, NotFound."""
    data = read_yaml(path)
    if isinstance(data, dict) and "task" in data and not isinstance(data.get("steps"), dict):
        hint = "this is a dataset's: `espalier data build` builds it"
        raise InvalidInput("a recipe of another kind", where=str(path), hint=hint)
    graph = check_recipe(data, Graph, path)
    graph._origin = Origin(path.parent, path, data)
    return graph


def split_source(given: str) -> tuple[str, str]:
    """`step.output` as its two parts; for an artifact's digest or a reference, ("", the text)."""
    if _DIGEST.fullmatch(given) or ":" in given:
        return "", given
    step, _, output = given.partition(".")
    return step, output


def bind_parameters(graph: Graph, given: Mapping[str, Any]) -> dict[str, Any]:
    """The pipeline's parameters with `given` over the defaults; each keeps its default's type.

    Text is read as that type ("3" for a number). Raises InvalidInput for an unknown parameter or a wrong type.
    """
    bound = dict(graph.parameters)
    for name, value in given.items():
        if name not in bound:
            raise InvalidInput(f"{graph.name} has no parameter {name!r}", hint=did_you_mean(name, bound))
        bound[name] = _as_type_of(bound[name], value, name)
    return bound


def _as_type_of(default: Any, value: Any, name: str) -> Any:
    wanted = type(default)
    if default is None or type(value) is wanted:
        return value
    if wanted is float and type(value) is int:
        return float(value)
    if isinstance(value, str):
        read = _read_text(value, wanted)
        if type(read) is wanted:
            return read
    raise InvalidInput(
        f"parameter {name}: {value!r} is no {wanted.__name__}", hint=f"the default is {default!r}; give the like"
    )


def _read_text(text: str, wanted: type) -> Any:
    if wanted is bool:
        return {"true": True, "yes": True, "false": False, "no": False}.get(text.lower())
    if wanted in (int, float):
        try:
            return wanted(text)
        except ValueError:
            return None
    if wanted in (list, dict):
        import json

        try:
            return json.loads(text)
        except ValueError:
            return None
    return text
