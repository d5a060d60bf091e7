"""`Run`: one execution of one step (or of a whole pipeline), with all that is needed to do it again."""

from __future__ import annotations

from typing import Any, Literal

from espalier.core.types.spec import Spec

RunStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class Environment(Spec):
    """What a run ran on: enough to explain a difference, nothing that identifies a person."""

    espalier: str
    python: str
    platform: str
    cores: int
    packages: dict[str, str] = {}
    git: str = ""  # commit of the user's project, with "+dirty" when it had changes


class Run(Spec):
    """`inputs` and `outputs` map a port name to an artifact digest."""

    id: str
    step: str  # "train.sft@1"
    name: str = ""
    spec: dict[str, Any] = {}
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    status: RunStatus = "queued"
    parent: str = ""
    actor: str = "local"
    created_ms: int = 0
    started_ms: int = 0
    ended_ms: int = 0
    cpu_s: float = 0.0
    cost_nusd: int = 0
    cache_key: str = ""
    cache_hit_of: str = ""  # the run whose outputs were reused
    environment: Environment | None = None
    error: dict[str, str] | None = None
    metrics: dict[str, float] = {}
