"""In what number type to compute: a fact of the machine, asked in one place."""

from __future__ import annotations

import torch


def compute_dtype() -> torch.dtype:
    """bf16 where the processor multiplies it natively, float32 elsewhere, where bf16 would be emulated."""
    native = bool(torch.cpu._is_avx512_bf16_supported()) or bool(torch.cpu._is_amx_tile_supported())
    return torch.bfloat16 if native else torch.float32
