"""Written-in copying: untrained weights with it lean towards what followed before, without it they do not."""

from __future__ import annotations

import pytest
import torch

from espalier.core.errors import InvalidInput
from espalier.nn.assembly import dense_decoder
from espalier.nn.shape import plain_shape
from espalier.tokens.mask import Tokenized
from espalier.tokens.pack import join, lay
from espalier.train.methods.create import initial_weights

SIZES = {"vocabulary": 500, "width": 256, "layers": 6, "hidden": 256, "rope_theta": 5e5}
SHAPE = plain_shape(**SIZES, heads=8, key_heads=8)  # type: ignore[arg-type]


def _lift(mimetic: bool) -> float:
    """How far the token to be repeated stands above the others in a doubled random sequence, in deviations."""
    weights = initial_weights(SHAPE, seed=0, mimetic=mimetic)
    once = torch.randperm(490, generator=torch.Generator().manual_seed(1))[:60] + 5
    ids = torch.cat([once, once])
    pack = join([lay(Tokenized("", ids.tolist(), [float(place >= 71) for place in range(120)]))])
    decoder = dense_decoder(weights, SHAPE, torch.float32)
    with torch.no_grad():
        logits = decoder.hidden(pack) @ decoder.head().matrix.t()
    right = logits.gather(1, torch.from_numpy(pack.targets)[:, None])
    return float(((right - logits.mean(1, keepdim=True)) / logits.std(1, keepdim=True)).mean())


def test_untrained_weights_already_lean_towards_repeating() -> None:
    assert _lift(mimetic=True) > 0.5
    assert abs(_lift(mimetic=False)) < 0.2


def test_a_shape_it_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidInput, match="heads of 32"):
        initial_weights(plain_shape(**SIZES, heads=4, key_heads=4), seed=0, mimetic=True)  # type: ignore[arg-type]
