"""What tests of adapters share: input, a loss, and weights that are not at their start."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

IDS = torch.arange(40).reshape(2, 20) * 7 % 288


def stir(parameters: Iterable[Tensor], std: float = 0.05, seed: int = 5) -> None:
    """B starts at zero, where half of the gradients vanish: give every weight a value, and a magnitude another."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            if parameter.dim() == 2:
                parameter.normal_(std=std, generator=generator)
            else:
                parameter.mul_(1 + torch.empty_like(parameter).normal_(std=std, generator=generator))


def loss(model: nn.Module) -> Tensor:
    return model(input_ids=IDS, labels=IDS).loss


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits
