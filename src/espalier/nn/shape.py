"""`LeanShape`: what the lean decoder must know of a dense Llama-like architecture, and which configurations have one.

Each option of a configuration is either in the shape or refused by `lean_shape`, whose caller then takes transformers'
own code. Knows configurations; no weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from espalier.nn.rotary import Rotation

# Families whose layers are: RMSNorm, attention, residual, RMSNorm, gated feed-forward, residual.
_FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "smollm3")
# Rotary positions that do not depend on how long a sequence has become.
_ROTARY_TYPES = ("default", "linear", "llama3", "yarn")


@dataclass(frozen=True, slots=True)
class LeanShape:
    """The numbers of an architecture; per layer where layers may differ."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    key_heads: int
    head_width: int
    hidden: int
    frequencies: tuple[float, ...]  # inverse rotary frequencies, head_width / 2 of them
    norm_eps: float = 1e-5
    tied: bool = True
    rotary_scale: float = 1.0  # what yarn multiplies cos and sin by
    head_norms: bool = False  # RMSNorm of each query and key head (Qwen3)
    still: frozenset[int] = frozenset()  # layers without rotary positions (SmolLM3)
    windows: tuple[int | None, ...] = ()  # per layer, how many keys a row sees; () = all, everywhere

    def window(self, layer: int) -> int | None:
        """How many keys a row of this layer sees, its own included; None = all."""
        return self.windows[layer] if self.windows else None

    def rotation(self, positions: Tensor) -> Rotation:
        """The rotary angles of `positions` (t), as transformers computes them: float32 products, cos, sin."""
        inverse = torch.tensor(self.frequencies, dtype=torch.float32, device=positions.device)
        angles = torch.outer(positions.to(torch.float32), inverse)
        return Rotation(angles.cos() * self.rotary_scale, angles.sin() * self.rotary_scale)


def plain_shape(
    *,
    vocabulary: int,
    width: int,
    layers: int,
    heads: int,
    key_heads: int,
    hidden: int,
    rope_theta: float,
    norm_eps: float = 1e-5,
    tied: bool = True,
) -> LeanShape:
    """A Llama with nothing special, for a model made from scratch."""
    head_width = width // heads
    return LeanShape(
        vocabulary=vocabulary,
        width=width,
        layers=layers,
        heads=heads,
        key_heads=key_heads,
        head_width=head_width,
        hidden=hidden,
        frequencies=_frequencies(rope_theta, head_width),
        norm_eps=norm_eps,
        tied=tied,
    )


def lean_shape(config: Any) -> LeanShape | None:
    """The shape of a configuration that the lean decoder computes exactly; None for any other."""
    family = getattr(config, "model_type", "")
    if family not in _FAMILIES or config.hidden_act != "silu" or getattr(config, "attention_dropout", 0.0):
        return None
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rotary = _rotary(config, head_width)
    windows = _windows(config, family)
    if rotary is None or windows is None:
        return None
    turning = getattr(config, "no_rope_layers", None) or [1] * config.num_hidden_layers
    return LeanShape(
        vocabulary=config.vocab_size,
        width=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        key_heads=config.num_key_value_heads,
        head_width=head_width,
        hidden=config.intermediate_size,
        frequencies=rotary[0],
        norm_eps=config.rms_norm_eps,
        tied=config.tie_word_embeddings,
        rotary_scale=rotary[1],
        head_norms=family == "qwen3",
        still=frozenset(layer for layer in range(config.num_hidden_layers) if not turning[layer]),
        windows=() if not any(windows) else tuple(windows),
    )


def _frequencies(theta: float, head_width: int) -> tuple[float, ...]:
    inverse = 1.0 / theta ** (torch.arange(0, head_width, 2, dtype=torch.float32) / head_width)
    return tuple(inverse.tolist())


def _rotary(config: Any, head_width: int) -> tuple[tuple[float, ...], float] | None:
    """Inverse frequencies and scale by transformers' own rules; None for a kind that depends on a sequence's length."""
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    parameters = getattr(config, "rope_parameters", None) or {}
    if parameters.get("rope_type", "default") not in _ROTARY_TYPES:
        return None
    if parameters.get("partial_rotary_factor", 1.0) != 1.0:
        return None
    if parameters.get("rope_type", "default") == "default":
        return _frequencies(float(parameters.get("rope_theta", 10000.0)), head_width), 1.0
    table = LlamaRotaryEmbedding(config)
    frequencies = tuple(table.inv_freq.float().tolist())
    return (frequencies, float(table.attention_scaling)) if 2 * len(frequencies) == head_width else None


def _windows(config: Any, family: str) -> Sequence[int | None] | None:
    """Keys seen per layer as the family's own attention decides it; None when the configuration is not understood."""
    count = config.num_hidden_layers
    window = getattr(config, "sliding_window", None)
    if family == "llama":
        return [None] * count
    if family == "mistral":  # every layer alike, whatever `layer_types` says
        return [window] * count
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * count
    if len(kinds) != count or not set(kinds) <= {"full_attention", "sliding_attention"}:
        return None
    if "sliding_attention" in kinds and not (window and getattr(config, "use_sliding_window", False)):
        return None
    return [window if kind == "sliding_attention" else None for kind in kinds]
