"""Step `adapter.combine`: several adapters of one base made one."""

from __future__ import annotations

from pydantic import Field

from espalier.core.errors import InvalidInput, did_you_mean
from espalier.core.ports import StepContext
from espalier.core.step import step
from espalier.nn.combination import CombineSpec
from espalier.services.steps.adapter_merge import AdapterMergeSpec, list_files


class AdapterCombineSpec(AdapterMergeSpec):
    """How they become one, and on which base."""

    combine: CombineSpec = CombineSpec()
    shares: dict[str, float] = Field(
        {}, description="how much of each, by the name of its input (adapter.NAME); empty = equal shares"
    )


@step(
    "adapter.combine",
    version=1,
    spec=AdapterCombineSpec,
    inputs={"adapter.*": "adapter?"},
    outputs={"adapter": "adapter"},
    files=list_files,
)
def adapter_combine(context: StepContext, spec: AdapterCombineSpec) -> None:
    """Combine several adapters of one base into one: by their exact sum, TIES, DARE and others (PEFT's)."""
    from espalier.nn.base import outline_base
    from espalier.nn.combining import combine_adapters

    ports = sorted(context.inputs)
    names = [port.partition(".")[2] for port in ports]
    for name in spec.shares.keys() ^ set(names) if spec.shares else ():
        said = "names no input" if name in spec.shares else "has no share"
        raise InvalidInput(f"{name!r} {said}", hint=did_you_mean(name, names if name in spec.shares else spec.shares))
    how = spec.combine
    if spec.shares:
        how = how.model_copy(update={"weights": tuple(spec.shares[name] for name in names)})
    base = outline_base(spec.base)
    made = combine_adapters(base, [context.input(port) for port in ports], context.output("adapter"), how)
    context.metric("parameters", made.parameters)
    context.describe("adapter", base=spec.base, base_digest=base.base_digest, method=f"combine:{how.how}")
