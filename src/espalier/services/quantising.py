"""Quantised bases: made from an original, held against it, and registered when they pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from espalier.core.operations import operation
from espalier.core.types import Run, Spec

if TYPE_CHECKING:
    from espalier.services.context import Context


class QuantiseModel(Spec):
    """Which base, how, and what it must reach to be registered."""

    base: str = Field(description="builtin:NAME, path:DIR, hf:OWNER/NAME, or model:NAME@vN for one tuned in full here")
    dataset: str = Field(description="dataset:NAME@vN whose answers both bases predict, or NAME for its newest version")
    scheme: Literal["int8", "nf4"] = Field(
        "int8", description="int8: 8 bits a weight; nf4: 4 bits, smaller and coarser"
    )
    name: str = Field(
        "", description="register it under this name when it passes; empty = it is only made and measured"
    )
    split: Literal["train", "validation", "test"] = Field("test", description="which split's answers are predicted")
    limit: int = Field(0, ge=0, description="only so many examples; 0 = all")
    conditions: tuple[str, ...] = Field(
        (),
        description="what must hold; none = perplexity_ratio <= 1.02, agreement >= 0.95, divergence <= 0.02",
    )


@operation("models.quantise", "POST /v1/registry/models/quantise", shape="job", positional=("base",), role="admin")
def quantise(context: Context, request: QuantiseModel) -> Run:
    """Quantise a base, measure it against its original, and register it when it passes its gate.

    What is measured, over the answers of a dataset: the ratio of the perplexities, how often both bases put the same
    token first, and the divergence of what comes next. A base that does not pass is kept with its report, and is
    neither registered nor served.

    Example:
        espalier models quantise builtin:seedling --dataset support --name seedling-int8
    """
    from espalier.core.refs import Ref
    from espalier.evals.fidelity import CONDITIONS
    from espalier.pipeline.graph import Graph
    from espalier.services.bases import list_parts
    from espalier.services.execution import execute_graph

    conditions = list(request.conditions or CONDITIONS)
    made: dict[str, str] = {}
    if request.base.startswith("model:"):
        made = {"base": list_parts(context.store, str(Ref.parse(request.base, kind="model")))["base"]}
    dataset = str(Ref.parse(request.dataset, kind="dataset"))
    original = "builtin:seedling" if made else request.base
    steps: dict[str, Any] = {
        "quantised": {
            "step": "model.quantise",
            "with": {"base": original, "scheme": request.scheme},
            "inputs": made,
        },
        "fidelity": {
            "step": "eval.fidelity",
            "with": {
                "original": original,
                "label": f"{request.scheme}, against {request.base}",
                "split": request.split,
                "limit": request.limit,
                "conditions": conditions,
            },
            "inputs": {"base": "quantised.base", "dataset": dataset} | ({"original": made["base"]} if made else {}),
        },
        "gate": {
            "step": "eval.gate",
            "with": {"conditions": conditions},
            "inputs": {"candidate": "fidelity.report"},
        },
    }
    if request.name:
        steps["register"] = {
            "step": "model.register",
            "with": {"name": request.name, "description": f"{request.base} in {request.scheme}"},
            "inputs": {
                "base": "quantised.base",
                "dataset": dataset,
                "report": "fidelity.report",
                "verdict": "gate.verdict",
            },
        }
    graph = Graph.model_validate({"name": f"model.quantise {request.base} {request.scheme}", "steps": steps})
    return execute_graph(context, graph.rooted_in(context.start))
