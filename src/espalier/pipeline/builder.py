"""The same graph in Python: for those who loop, branch and share pieces better in code than in YAML.

pipeline = Builder("support", epochs=3)
dataset = pipeline.add("dataset", "data.build", source="tickets/")
for rank in (4, 8):
    pipeline.add(f"rank_{rank}", "train.sft", inputs={"dataset": dataset["dataset"]}, rank=rank)
graph = pipeline.build()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from espalier.core.errors import Conflict
from espalier.pipeline.graph import Graph, Node


@dataclass(frozen=True, slots=True)
class Handle:
    """A step that was added; `handle["port"]` is its output, for another step's inputs."""

    name: str

    def __getitem__(self, port: str) -> str:
        return f"{self.name}.{port}"

    def metric(self, name: str) -> str:
        """The name of a metric in a `when`."""
        return f"steps.{self.name}.{name}"


class Builder:
    """Collects steps; keyword arguments are the pipeline's parameters with their defaults."""

    def __init__(self, name: str, *, description: str = "", seed: int = 0, lock: str = "", **parameters: Any) -> None:
        self._head: dict[str, Any] = {"name": name, "description": description, "seed": seed, "lock": lock}
        self._parameters = parameters
        self._nodes: dict[str, Node] = {}

    def add(
        self,
        name: str,
        step: str,
        *,
        inputs: Mapping[str, str] | None = None,
        needs: Sequence[Handle] = (),
        when: str = "",
        retries: int = 0,
        seed: int | None = None,
        **spec: Any,
    ) -> Handle:
        """Add `step` under `name`; keyword arguments are its spec. Raises Conflict when the name is taken."""
        if name in self._nodes:
            raise Conflict(f"the pipeline has a step {name!r} already", hint="give each step a name of its own")
        self._nodes[name] = Node.model_validate(
            {
                "step": step,
                "with": spec,
                "inputs": dict(inputs or {}),
                "needs": tuple(handle.name for handle in needs),
                "when": when,
                "retries": retries,
                "seed": seed,
            }
        )
        return Handle(name)

    def parameter(self, name: str) -> str:
        """A reference to a parameter, as a spec's value."""
        return f"${{parameters.{name}}}"

    def build(self) -> Graph:
        """The graph; its order is checked. Raises InvalidInput."""
        graph = Graph.model_validate({**self._head, "parameters": self._parameters, "steps": self._nodes})
        graph.order()
        return graph
