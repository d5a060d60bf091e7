"""What a full fine-tuning leaves as it is, as a recipe says it. No torch: a recipe is read in milliseconds."""

from __future__ import annotations

from pydantic import Field

from espalier.core.types import Spec


class FreezeSpec(Spec):
    """What a full fine-tuning leaves as it is. The defaults leave nothing: everything learns."""

    layers_below: int = Field(
        0, ge=0, description="the first N layers and the token embedding (with a head tied to it) stay as they are"
    )
    names: tuple[str, ...] = Field((), description="patterns of parameters that stay as they are, as *.mlp.*")
