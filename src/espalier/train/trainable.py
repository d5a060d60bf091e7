"""`Trainable`: what a method hands to the loop. Knows neither."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from espalier.tokens.pack import Rectangle


class Trainable(Protocol):
    """What is trained: named tensors with gradients, and a loss that reads them."""

    @property
    def parameters(self) -> Mapping[str, Tensor]: ...

    def loss(self, batch: Rectangle, weights: Tensor) -> Tensor:
        """sum over the batch's rows of weight * negative log-likelihood, a scalar; `weights` (r,) come normalised."""
        ...
