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
        "adapter": "adapter?",
        "base": "base?",
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
    """Register an adapter, or a model tuned in full, as a version that waits for approval."""
    from espalier.core.config import load_config
    from espalier.core.errors import InvalidInput
    from espalier.nn.locate import anchor_base, digest_base, locate_base
    from espalier.registry.versions import Registration, register
    from espalier.services.bases import name_base
    from espalier.store.store import open_store
    from espalier.store.workspace import Workspace

    made = context.inputs.get("base")
    adapter = context.inputs.get("adapter")
    if adapter is None and made is None:
        raise InvalidInput("there is nothing to register", hint="give the input `adapter` or `base`")
    base = (
        name_base(made.digest) if made else anchor_base(spec.base, Path.cwd())
    )  # a server answers from another folder
    folder = context.input("base") if made else locate_base(base, fetch=False)
    workspace = Workspace(context.workspace)
    store = open_store(workspace, load_config(workspace.config_file).config.store)
    try:
        reports = [context.inputs[name].digest for name in ("report", "baseline") if name in context.inputs]
        version = register(
            store,
            Registration(
                name=spec.name,
                base=base,
                base_digest=digest_base(folder),
                adapter=adapter.digest if adapter else "",
                prompt=context.inputs["prompt"].digest if "prompt" in context.inputs else "",
                dataset=context.inputs["dataset"].digest,
                reports=tuple(reports),
                run=store.artifacts.get((adapter or context.inputs["base"]).digest).made_by,
                description=spec.description,
            ),
            actor=context.actor,
        )
    finally:
        store.close()
    context.metric("version", version.version)
