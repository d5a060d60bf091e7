"""Step `model.quantise`: a base in 8 or 4 bits a weight, a base of its own that must pass its gate before it serves."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field

from espalier.core.ports import StepContext
from espalier.core.step import step
from espalier.core.types import Spec
from espalier.nn.locate import anchor_base, list_base_files


class ModelQuantiseSpec(Spec):
    """Which base, and how."""

    base: str = Field("builtin:seedling", description="the original: builtin:NAME, path:DIR or hf:OWNER/NAME")
    scheme: Literal["int8", "nf4"] = Field(
        "int8", description="int8: each row its own scale; nf4: 4 bits, blocks of 64"
    )


def list_files(spec: ModelQuantiseSpec, folder: Path) -> Iterable[Path]:
    """The original's files: their content decides the result."""
    return list_base_files(anchor_base(spec.base, folder))


@step(
    "model.quantise",
    version=1,
    spec=ModelQuantiseSpec,
    inputs={"base": "base?"},  # one made here, instead of the spec's
    outputs={"base": "base"},
    files=list_files,
)
def model_quantise(context: StepContext, spec: ModelQuantiseSpec) -> None:
    """Quantise a base's linear layers; the result is a base that loads, trains adapters and, past its gate, serves."""
    from dataclasses import replace

    from espalier.core.errors import InvalidInput
    from espalier.nn.base import load_base
    from espalier.nn.locate import locate_base, read_quantised
    from espalier.nn.quantisedbase import save_quantised
    from espalier.services.bases import name_base

    made = context.inputs.get("base")
    named = name_base(made.digest) if made else spec.base
    place = f"path:{context.input('base')}" if made else spec.base
    if read_quantised(locate_base(place, fetch=False)) != "none":
        raise InvalidInput(f"{named} is quantised already", hint="quantise the original")
    base = load_base(place, dtype="stored", fetch=False, device="cpu", quantise=spec.scheme)
    digest = save_quantised(replace(base, spec=named), context.output("base"))
    context.describe("base", base=named, base_digest=base.base_digest, scheme=spec.scheme, digest=digest)
