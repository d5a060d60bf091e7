"""A weight that is not trained: a tensor as it is, or one kept in fewer bits and made dense for each use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def settled(x: Tensor) -> Iterator[Tensor]:
    """x in the type autocast computes in, where that is on; inside it is off.

    A product with its own backward must not have single operations of its forward cast behind its back.
    """
    kind = x.device.type
    if not torch.is_autocast_enabled(kind):
        yield x
        return
    dtype = torch.get_autocast_dtype(kind)
    with torch.autocast(kind, enabled=False):
        yield x.to(dtype)


FrozenWeight: TypeAlias = Tensor | Dequantises


def dense(weight: FrozenWeight, dtype: torch.dtype) -> Tensor:
    """`weight` (o, i) as numbers of `dtype`; a tensor of that type as it is."""
    return weight.to(dtype) if isinstance(weight, Tensor) else weight.dequantise(dtype)
