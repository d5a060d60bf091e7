"""What a stranger's adapter does not say of itself. No torch: a recipe is read in milliseconds."""

from __future__ import annotations

from pydantic import Field

from espalier.core.types import Spec


class ImportSpec(Spec):
    """What the files leave open; nothing, where they come with an adapter_config.json."""

    alpha: float | None = Field(
        None, gt=0, description="strength of a loralib state dict, whose file does not say it; scaled by alpha / rank"
    )
    enabled: tuple[bool, ...] = Field(
        (), description="loralib's enable_lora of a fused layer, as true false true for q and v of q, k, v"
    )
