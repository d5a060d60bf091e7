from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from espalier.nn.dora import DoraProduct
from espalier.nn.dropout import Keep, draw_keep, dropping
from espalier.nn.linear import AdapterLinear, LoraProduct
from espalier.nn.lora import LoraSpec

X = torch.ones(50, 30)


def _mask(seed: int, name: str, share: float = 0.3) -> Tensor:
    with dropping(seed):
        keep = draw_keep(X, share, name)
    assert keep is not None
    return keep.mask


def test_a_mask_depends_on_seed_and_name_alone_whatever_was_drawn_before_and_in_which_thread() -> None:
    first = _mask(7, "q_proj")
    torch.rand(3)
    _mask(8, "q_proj")
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lambda seed: _mask(seed, "q_proj"), [7, 9] * 20))
    assert all(torch.equal(mask, first) for mask in drawn[::2])
    assert not torch.equal(drawn[1], first)
    assert not torch.equal(_mask(7, "k_proj"), first)


def test_the_process_wide_generator_is_not_touched() -> None:
    before = torch.get_rng_state()
    _mask(7, "q_proj")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_mask_is_the_same_on_every_machine() -> None:
    digest = hashlib.sha256(_mask(7, "q_proj").numpy().tobytes()).hexdigest()
    assert digest[:16] == "c80bd8e83db2a4ee"


@given(st.floats(0.01, 0.95))
def test_the_share_is_dropped_and_the_mean_kept(share: float) -> None:
    with dropping(3):
        keep = draw_keep(torch.ones(400, 500), share, "layer")
    assert keep is not None
    kept = keep.of(torch.ones(400, 500))
    assert abs(float((kept == 0).float().mean()) - share) < 0.006
    assert abs(float(kept.mean()) - 1) < 0.03 / (1 - share)


def test_nothing_is_dropped_outside_without_gradient_or_at_zero() -> None:
    assert draw_keep(X, 0.5, "layer") is None
    with dropping(1):
        assert draw_keep(X, 0.0, "layer") is None
        with torch.no_grad():
            assert draw_keep(X, 0.5, "layer") is None
        with dropping(2):
            inner = draw_keep(X, 0.5, "layer")
        outer = draw_keep(X, 0.5, "layer")
    assert inner is not None
    assert outer is not None
    assert torch.equal(inner.mask, _mask(2, "layer", 0.5))
    assert torch.equal(outer.mask, _mask(1, "layer", 0.5))


def _materials() -> tuple[list[Tensor], Tensor, Tensor, Keep]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(5, 6), (2, 6), (4, 2), (4,), (4, 6), (4,)]
    x, a, b, magnitude, weight, bias = (
        torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes
    )
    mask = torch.rand(5, 6, generator=generator) < 0.6
    return [t.requires_grad_() for t in (x, a, b, magnitude)], weight, bias, Keep(mask, 1.6)


@pytest.mark.parametrize("dropped", [False, True])
def test_loras_gradients_pass_gradcheck(dropped: bool) -> None:
    (x, a, b, _), weight, bias, keep = _materials()

    def product(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return LoraProduct.apply(x, weight, bias, a, b, 0.7, keep if dropped else None)

    assert torch.autograd.gradcheck(product, [x, a, b])


@pytest.mark.parametrize("dropped", [False, True])
def test_doras_value_and_gradients_are_those_of_its_formula_with_the_length_held_constant(dropped: bool) -> None:
    (x, a, b, magnitude), weight, bias, keep = _materials()
    d = keep.of(x) if dropped else x
    gain = magnitude / torch.linalg.norm(weight + 0.7 * b @ a, dim=1).detach()
    expected = x @ weight.t() + bias + (gain - 1) * (d @ weight.t()) + gain * 0.7 * (d @ a.t() @ b.t())
    found = DoraProduct.apply(x, weight, bias, a, b, magnitude, 0.7, keep if dropped else None)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weights = torch.arange(20.0, dtype=torch.float64).view(5, 4)
    inputs = [x, a, b, magnitude]
    theirs = torch.autograd.grad((expected * weights).sum(), inputs)
    ours = torch.autograd.grad((found * weights).sum(), inputs)
    for own, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, reference, rtol=1e-11, atol=1e-11)


def test_a_layer_drops_its_adapters_input_only() -> None:
    layer = AdapterLinear("layer", nn.Linear(30, 8), LoraSpec(rank=4, dropout=0.3), seed=0)
    nn.init.normal_(layer.b)
    with dropping(7):
        found = layer(X)
    expected = layer.base(X) + layer.scale * ((X * _mask(7, "layer")) / 0.7) @ layer.a.t() @ layer.b.t()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer(X), layer.base(X) + layer.scale * X @ layer.a.t() @ layer.b.t())
