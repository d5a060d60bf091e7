"""A weight that is not trained: a tensor as it is, or one kept in fewer bits and made dense for each use."""

from __future__ import annotations

from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Dequantises(Protocol):
    """A matrix kept in few bits (nn/quantized.py)."""

    @property
    def shape(self) -> torch.Size: ...

    def dequantise(self, dtype: torch.dtype) -> Tensor:
        """The whole matrix (o, i), made anew: keep it no longer than its product."""
        ...


FrozenWeight: TypeAlias = Tensor | Dequantises


def dense(weight: FrozenWeight, dtype: torch.dtype) -> Tensor:
    """`weight` (o, i) as numbers of `dtype`; a tensor of that type as it is."""
    return weight.to(dtype) if isinstance(weight, Tensor) else weight.dequantise(dtype)
