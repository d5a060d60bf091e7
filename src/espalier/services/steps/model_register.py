"""Step `model.register`: a version in the registry, pending approval, with everything it stands on.

A side effect: done every time and idempotent, for the same parts are the same version.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from espalier.core.ports import StepContext
from espalier.core.step import step
from espalier.core.types import Spec


class ModelRegisterSpec(Spec):
    """Under which name."""

    name: str = Field(description="name in the registry: model:NAME@vN")
    base: str = Field("builtin:seedling", description="the base the adapter belongs to")
    description: str = Field("", description="one line for people who decide")


@step(
    "model.register",
    version=1,
    spec=ModelRegisterSpec,
    inputs={
        "adapter": "adapter",
        "dataset": "dataset",
        "report": "report",
        "prompt": "prompt?",
        "baseline": "report?",
        "verdict": "verdict?",
    },
    outputs={},
    side_effect=True,
)
def model_register(context: StepContext, spec: ModelRegisterSpec) -> None:
    """Register an adapter as a model version that waits for approval."""
    from espalier.core.config import load_config
    from espalier.nn.locate import anchor_base, digest_base, locate_base
    from espalier.registry.versions import Registration, register
    from espalier.store.store import open_store
    from espalier.store.workspace import Workspace

    base = anchor_base(spec.base, Path.cwd())  # a server answers from another folder
    workspace = Workspace(context.workspace)
    store = open_store(workspace, load_config(workspace.config_file).config.store)
    try:
        made = store.artifacts.get(context.inputs["adapter"].digest).made_by
        reports = [context.inputs[name].digest for name in ("report", "baseline") if name in context.inputs]
        version = register(
            store,
            Registration(
                name=spec.name,
                base=base,
                base_digest=digest_base(locate_base(base, fetch=False)),
                adapter=context.inputs["adapter"].digest,
                prompt=context.inputs["prompt"].digest if "prompt" in context.inputs else "",
                dataset=context.inputs["dataset"].digest,
                reports=tuple(reports),
                run=made,
                description=spec.description,
            ),
            actor=context.actor,
        )
    finally:
        store.close()
    context.metric("version", version.version)
