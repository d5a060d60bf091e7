"""Step `adapter.merge`: an adapter added to its base's weights, a base of its own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import Field

from espalier.core.ports import StepContext
from espalier.core.step import step
from espalier.core.types import Spec
from espalier.nn.locate import anchor_base, list_base_files


class AdapterMergeSpec(Spec):
    """Into which base."""

    base: str = Field("builtin:seedling", description="the base the adapter was trained on")


def list_files(spec: AdapterMergeSpec, folder: Path) -> Iterable[Path]:
    """The base's files: their content decides the result."""
    return list_base_files(anchor_base(spec.base, folder))


@step(
    "adapter.merge",
    version=1,
    spec=AdapterMergeSpec,
    inputs={"adapter": "adapter"},
    outputs={"base": "base"},
    files=list_files,
)
def adapter_merge(context: StepContext, spec: AdapterMergeSpec) -> None:
    """Merge an adapter into its base; the result is a base, loaded, served and tuned as any."""
    from espalier.nn.base import load_base
    from espalier.nn.merging import merge_into_base

    base = load_base(spec.base, dtype="stored", fetch=False, device="cpu")
    digest = merge_into_base(base, context.input("adapter"), context.output("base"))
    context.describe("base", base=spec.base, base_digest=base.base_digest, digest=digest)
