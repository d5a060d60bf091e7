"""LoRA's settings, and how PEFT spells them in adapter_config.json. No torch: a recipe is read in milliseconds.

LoRA: Hu et al. 2021, https://arxiv.org/abs/2106.09685. y = W x + s B A x with A (rank, in), B (out, rank).
rsLoRA: Kalajdzievski 2023, https://arxiv.org/abs/2312.03732: s = alpha / sqrt(rank) instead of alpha / rank.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field

from espalier.core.errors import InvalidInput, UnsupportedModel
from espalier.core.types import Spec

ALL_LINEAR = "all-linear"

# PEFT options that change what an adapter computes in ways our layer does not, with the values that mean "off".
_MUST_BE_OFF: dict[str, tuple[Any, ...]] = {
    "alpha_pattern": (None, {}),
    "rank_pattern": (None, {}),
    "bias": (None, "none"),
    "fan_in_fan_out": (None, False),
    "layer_replication": (None,),
    "lora_bias": (None, False),
    "modules_to_save": (None, []),
    "target_parameters": (None, []),
    "trainable_token_indices": (None, [], {}),
    "use_bdlora": (None, False),
    "use_dora": (None, False),
    "use_qalora": (None, False),
}


class LoraSpec(Spec):
    """What is trained beside the frozen weights. The defaults are the usual ones; seedling's card says how they did."""

    rank: int = Field(16, ge=1, le=1024, description="inner width; 8 to 32 learns a format, more learns more slowly")
    alpha: float = Field(32.0, gt=0, description="strength; the update is scaled by alpha / rank")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="on the adapter's input; 0 is fastest, small sets may want 0.05"
    )
    targets: tuple[str, ...] = Field(
        (ALL_LINEAR,),
        min_length=1,
        description="last part of the layers' names, as q_proj; all-linear = every linear layer but the head",
    )
    rslora: bool = Field(False, description="scale by alpha / sqrt(rank), for ranks above 64")

    @property
    def scale(self) -> float:
        """What B A x is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


def to_peft(spec: LoraSpec, targets: list[str], base: str) -> dict[str, Any]:
    """adapter_config.json for `spec`; `targets` are the layer names it really stands on, resolved and sorted.

    Only a Hub name is written as the base: any other would name a folder of the machine that trained.
    """
    return {
        "base_model_name_or_path": base.removeprefix("hf:") if base.startswith("hf:") else None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": int(spec.alpha) if spec.alpha.is_integer() else spec.alpha,
        "lora_dropout": spec.dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": spec.rank,
        "target_modules": targets,
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": spec.rslora,
    }


def from_peft(config: dict[str, Any], where: str) -> LoraSpec:
    """The settings in somebody's adapter_config.json.

    Raises UnsupportedModel when it asks for something our layer would leave out, InvalidInput when it is incomplete.
    """
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UnsupportedModel(f"a {kind} adapter", where=where, hint="only LoRA adapters can be served")
    for option, off in _MUST_BE_OFF.items():
        if config.get(option) not in off:
            raise UnsupportedModel(
                f"the adapter uses {option}={config[option]!r}, which would be left out",
                where=where,
                hint="train it without, or merge it into its base with peft and serve that with path:DIR",
            )
    targets = config.get("target_modules") or [ALL_LINEAR]
    try:
        return LoraSpec(
            rank=int(config["r"]),
            alpha=float(config["lora_alpha"]),
            dropout=float(config.get("lora_dropout") or 0.0),
            targets=(targets,) if isinstance(targets, str) else tuple(sorted(targets)),
            rslora=bool(config.get("use_rslora")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"adapter_config.json is not usable: {error!r}", where=where) from None
