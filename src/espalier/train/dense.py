"""`DenseLlama`: a Llama's named weights as a Trainable, all of them learning.

Knows the lean forward (nn/llama) and the objective; knows no data and no optimizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from espalier.nn.crossentropy import head_cross_entropy
from espalier.nn.llama import LlamaShape, head, hidden_rows
from espalier.tokens.pack import Rectangle


@dataclass(frozen=True, slots=True)
class DenseLlama:
    """Full-parameter training; `dtype` is what products are computed in, the weights stay float32."""

    weights: Mapping[str, Tensor]
    shape: LlamaShape
    dtype: torch.dtype

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        return self.weights

    def loss(self, batch: Rectangle, weights: Tensor) -> Tensor:
        ids, rows = torch.from_numpy(batch.ids), torch.from_numpy(batch.rows)
        hidden = hidden_rows(self.weights, self.shape, ids, rows, self.dtype)
        matrix = head(self.weights, self.shape, self.dtype)
        return head_cross_entropy(hidden, matrix, torch.from_numpy(batch.targets), weights)
