"""Written-in copying: untrained weights with it lean towards what followed before, without it they do not."""

from __future__ import annotations

import pytest
import torch

from espalier.core.errors import InvalidInput
from espalier.nn.llama import LlamaShape, head, hidden_rows
from espalier.train.methods.create import initial_weights

SHAPE = LlamaShape(500, 256, 6, 8, 8, 32, 256, 5e5)


def _lift(mimetic: bool) -> float:
    """How far the token to be repeated stands above the others in a doubled random sequence, in deviations."""
    weights = initial_weights(SHAPE, seed=0, mimetic=mimetic)
    once = torch.randperm(490, generator=torch.Generator().manual_seed(1))[:60] + 5
    ids = torch.cat([once, once])[None]
    rows = torch.arange(70, 119)
    with torch.no_grad():
        logits = hidden_rows(weights, SHAPE, ids, rows, torch.float32) @ head(weights, SHAPE, torch.float32).t()
    right = logits.gather(1, ids[0, rows + 1][:, None])
    return float(((right - logits.mean(1, keepdim=True)) / logits.std(1, keepdim=True)).mean())


def test_untrained_weights_already_lean_towards_repeating() -> None:
    assert _lift(mimetic=True) > 0.5
    assert abs(_lift(mimetic=False)) < 0.2


def test_a_shape_it_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidInput, match="heads of 32"):
        initial_weights(LlamaShape(500, 256, 6, 4, 4, 64, 256, 5e5), seed=0, mimetic=True)
