"""An adapter's settings, and how PEFT spells them in adapter_config.json. No torch: a recipe is read in milliseconds.

LoRA: Hu et al. 2021, https://arxiv.org/abs/2106.09685. y = W x + s B A x with A (rank, in), B (out, rank).
rsLoRA: Kalajdzievski 2023, https://arxiv.org/abs/2312.03732: s = alpha / sqrt(rank) instead of alpha / rank.
DoRA: Liu et al. 2024, https://arxiv.org/abs/2402.09353: y = m (W + s B A) x / |W + s B A|, rows by rows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

from pydantic import Field, field_validator

from espalier.core.errors import InvalidInput, UnsupportedModel
from espalier.core.types import Spec

ALL_LINEAR = "all-linear"
Number = TypeVar("Number", int, float)

# PEFT's ways to start A and B that leave the base's weights alone. With the others (PiSSA, OLoRA, CorDA, LoftQ,
# LoRA-GA) the adapter was trained on a base that is not the original any more.
_HARMLESS_STARTS = (None, True, False, "gaussian", "eva", "orthogonal", "mica")
# PEFT options that change what an adapter computes in ways our layer does not, with the values that mean "off".
_MUST_BE_OFF: dict[str, tuple[Any, ...]] = {
    "alora_invocation_tokens": (None, []),
    "arrow_config": (None,),
    "bias": (None, "none"),
    "fan_in_fan_out": (None, False),
    "layer_replication": (None, []),
    "lora_bias": (None, False),
    "modules_to_save": (None, []),
    "target_parameters": (None, []),
    "trainable_token_indices": (None, [], {}),
    "use_bdlora": (None, False),
    "use_qalora": (None, False),
}


class LoraSpec(Spec):
    """What is trained beside the frozen weights. The defaults are the usual ones; seedling's card says how they did."""

    rank: int = Field(16, ge=1, le=4096, description="inner width; 8 to 32 learns a format, more learns more slowly")
    alpha: float = Field(32.0, gt=0, description="strength; the update is scaled by alpha / rank")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="on the adapter's input; 0 is fastest, small sets may want 0.05"
    )
    targets: tuple[str, ...] = Field(
        (ALL_LINEAR,),
        min_length=1,
        description="last part of the layers' names, as q_proj; all-linear = every linear layer but the head",
    )
    ranks: Mapping[str, int] = Field({}, description="another rank for some targets, as {q_proj: 8}")
    alphas: Mapping[str, float] = Field({}, description="another alpha for some targets, as {q_proj: 16}")
    layers: tuple[int, int] | int | None = Field(
        None, description="only in these layers: [FIRST, LAST], counted from 0, or N for the last N; empty = in all"
    )
    rslora: bool = Field(False, description="scale by alpha / sqrt(rank), for ranks above 64")
    dora: bool = Field(False, description="learn each row's length by itself (DoRA)")
    init: Literal["kaiming", "gaussian"] = Field(
        "kaiming", description="how A starts: uniform up to 1 / sqrt(in), or normal with deviation 1 / rank; B is 0"
    )

    @field_validator("ranks", "alphas")
    @classmethod
    def _check_patterns(cls, given: Mapping[str, float]) -> Mapping[str, float]:
        for name, number in given.items():
            if number <= 0:
                raise ValueError(f"{name}: {number} is not above 0")
            if _compiled(name) is None:
                raise ValueError(f"{name!r} is neither the last part of a layer's name nor a regular expression")
        return given

    @field_validator("layers")
    @classmethod
    def _check_layers(cls, given: tuple[int, int] | int | None) -> tuple[int, int] | int | None:
        if isinstance(given, int) and given < 1:
            raise ValueError("the last N layers: N is at least 1")
        if isinstance(given, tuple) and not 0 <= given[0] <= given[1]:
            raise ValueError("write [FIRST, LAST] with 0 <= FIRST <= LAST")
        return given

    @property
    def scale(self) -> float:
        """What B A x is multiplied by where no pattern says otherwise."""
        return self._scale(self.alpha, self.rank)

    def rank_of(self, layer: str) -> int:
        """The rank on the layer of that full name."""
        return _pick(self.ranks, layer, self.rank)

    def scale_of(self, layer: str) -> float:
        """What B A x is multiplied by on the layer of that full name."""
        return self._scale(_pick(self.alphas, layer, self.alpha), self.rank_of(layer))

    def _scale(self, alpha: float, rank: int) -> float:
        return alpha / (math.sqrt(rank) if self.rslora else rank)


def layer_index(name: str) -> int | None:
    """Which layer of its model a module belongs to: the first number in its full name, as PEFT counts."""
    return next((int(part) for part in name.split(".")[1:] if part.isdigit()), None)


def choose_layers(spec: LoraSpec, names: Iterable[str]) -> range | None:
    """The layers that `spec` asks for out of those that modules called `names` stand in; None for all.

    Raises InvalidInput when the model has fewer.
    """
    if spec.layers is None:
        return None
    count = 1 + max((index for index in map(layer_index, names) if index is not None), default=-1)
    wanted = range(count - spec.layers, count) if isinstance(spec.layers, int) else range(
        spec.layers[0], spec.layers[1] + 1
    )  # fmt: skip
    if wanted.start < 0 or wanted.stop > count:
        raise InvalidInput(
            f"layers {spec.layers} are asked for, the model has {count}", hint=f"they are 0 to {count - 1}"
        )
    return wanted


def to_peft(spec: LoraSpec, targets: list[str], base: str, layers: Iterable[int] | None = None) -> dict[str, Any]:
    """adapter_config.json for `spec`; `targets` are the layer names it really stands on, resolved and sorted.

    Only a Hub name is written as the base: any other would name a folder of the machine that trained.
    """
    return {
        "alpha_pattern": {name: _plain(alpha) for name, alpha in spec.alphas.items()},
        "base_model_name_or_path": base.removeprefix("hf:") if base.startswith("hf:") else None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": "gaussian" if spec.init == "gaussian" else True,
        "layers_to_transform": None if layers is None else list(layers),
        "lora_alpha": _plain(spec.alpha),
        "lora_dropout": spec.dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": spec.rank,
        "rank_pattern": dict(spec.ranks),
        "target_modules": targets,
        "task_type": "CAUSAL_LM",
        "use_dora": spec.dora,
        "use_rslora": spec.rslora,
    }


def from_peft(config: Mapping[str, Any], where: str) -> LoraSpec:
    """The settings in somebody's adapter_config.json; `layers` stays empty, the weights say where they stand.

    Raises UnsupportedModel when it asks for something our layer would leave out, InvalidInput when it is incomplete.
    """
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UnsupportedModel(f"a {kind} adapter", where=where, hint="only LoRA and DoRA adapters are understood")
    for option, off in _MUST_BE_OFF.items():
        if config.get(option) not in off:
            raise UnsupportedModel(
                f"the adapter uses {option}={config[option]!r}, which would be left out",
                where=where,
                hint="train it without, or merge it into its base with peft and serve that with path:DIR",
            )
    start = config.get("init_lora_weights")
    if start not in _HARMLESS_STARTS:
        raise UnsupportedModel(
            f"the adapter was started with init_lora_weights={start!r}, which changes the base's weights",
            where=where,
            hint="convert it with peft: save_pretrained(..., path_initial_model_for_weight_conversion=...)",
        )
    targets = config.get("target_modules") or [ALL_LINEAR]
    try:
        return LoraSpec(
            rank=int(config["r"]),
            alpha=float(config["lora_alpha"]),
            dropout=float(config.get("lora_dropout") or 0.0),
            targets=(targets,) if isinstance(targets, str) else tuple(sorted(targets)),
            ranks={str(name): int(rank) for name, rank in (config.get("rank_pattern") or {}).items()},
            alphas={str(name): float(alpha) for name, alpha in (config.get("alpha_pattern") or {}).items()},
            rslora=bool(config.get("use_rslora")),
            dora=bool(config.get("use_dora")),
            init="gaussian" if config.get("init_lora_weights") == "gaussian" else "kaiming",
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"adapter_config.json is not usable: {_reason(error)}", where=where) from None


def _pick(patterns: Mapping[str, Number], layer: str, otherwise: Number) -> Number:
    for pattern, number in patterns.items():
        compiled = _compiled(pattern)
        if compiled is not None and compiled.fullmatch(layer):
            return number
    return otherwise


def _compiled(pattern: str) -> Any:
    """The pattern as PEFT reads it, or None when it is none: a name's end, or a regular expression of one."""
    if re.fullmatch(r"[\w.-]+", pattern):
        return re.compile(rf"(.*\.)?{pattern}")
    import re2  # a stranger's expression: matched in linear time, whatever it says

    try:
        return re2.compile(rf"(.*\.)?({pattern})")
    except re2.error:
        return None


def _plain(number: float) -> float:
    return int(number) if float(number).is_integer() else number


def _reason(error: Exception) -> str:
    lines = str(error).splitlines() or [repr(error)]
    return f"it has no {error}" if isinstance(error, KeyError) else " ".join(line.strip() for line in lines[:3])
