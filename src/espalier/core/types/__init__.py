"""The core types, by what they speak of. A type enters here only when two stages use it.

Data that flows by the million is a slots dataclass (`Document`, `Message`, `Example`); specs, records and wire shapes
are pydantic, frozen, with unknown keys refused (`Spec`). Units stand in names: `_s _ms _bytes _tokens _nusd`.
"""

from espalier.core.types.artifacts import Artifact, ArtifactFile
from espalier.core.types.deployments import Canary, Deployment, Shadow, Variant
from espalier.core.types.examples import Document, Example, Message, Span
from espalier.core.types.identity import Principal
from espalier.core.types.inference import (
    Completion,
    Generation,
    ResponseFormat,
    SamplingSpec,
    TokenLogprob,
    Tool,
    ToolCall,
    Usage,
)
from espalier.core.types.models import Approval, ModelVersion
from espalier.core.types.records import AuditEvent, LedgerEntry, Prompt
from espalier.core.types.runs import Environment, Run, RunStatus
from espalier.core.types.scores import EvalReport, Score
from espalier.core.types.spec import Spec

__all__ = [
    "Approval",
    "Artifact",
    "ArtifactFile",
    "AuditEvent",
    "Canary",
    "Completion",
    "Deployment",
    "Document",
    "Environment",
    "EvalReport",
    "Example",
    "Generation",
    "LedgerEntry",
    "Message",
    "ModelVersion",
    "Principal",
    "Prompt",
    "ResponseFormat",
    "Run",
    "RunStatus",
    "SamplingSpec",
    "Score",
    "Shadow",
    "Span",
    "Spec",
    "TokenLogprob",
    "Tool",
    "ToolCall",
    "Usage",
    "Variant",
]
