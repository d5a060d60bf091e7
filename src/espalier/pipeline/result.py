"""What a pipeline's run came to, step by step, each with why it ran or did not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(slots=True)
class NodeResult:
    """One step. `outputs` maps a port to an artifact digest; `reason` is the explanation of the hit, miss or skip."""

    name: str
    step: str
    status: Literal["hit", "ran", "skipped"]
    reason: str
    run: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    cpu_s: float = 0.0
    wall_ms: int = 0


@dataclass(slots=True)
class PipelineResult:
    """All steps in the order they were done; `run` is the id of the pipeline's own run."""

    run: str
    nodes: dict[str, NodeResult] = field(default_factory=dict)

    @property
    def hits(self) -> int:
        return sum(node.status == "hit" for node in self.nodes.values())

    def output(self, node: str, port: str) -> str:
        """An artifact's digest; raises KeyError when the step was skipped or has no such output."""
        return self.nodes[node].outputs[port]
