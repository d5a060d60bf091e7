"""Norms, rotary positions and gates: compiled and in plain torch, against autograd over float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from espalier.nn.gates import Kind, gate, gate_backward
from espalier.nn.kernels.compiling import SWITCH, kernels_in_use
from espalier.nn.norms import normalise, normalise_backward, rms_norm
from espalier.nn.rotary import Rotation, rotate

DTYPES = [torch.float32, torch.bfloat16]
Compute = Callable[..., Tensor]


@pytest.fixture(params=["compiled", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "torch":
        monkeypatch.setenv(SWITCH, "off")
    elif kernels_in_use()[0] != "compiled":
        pytest.skip(kernels_in_use()[1])
    yield request.param


def _check(ours: Compute, theirs: Compute, *inputs: Tensor) -> None:
    """Answer and gradients of every input, to 1e-6 of the largest in float32, to its own rounding in bfloat16."""
    given = [x.clone().requires_grad_() for x in inputs]
    exact = [x.double().requires_grad_() for x in inputs]
    out, wanted = ours(*given), theirs(*exact)
    probe = torch.randn(out.shape).to(out.dtype)
    found = torch.autograd.grad(out, given, probe)
    wanted_gradients = torch.autograd.grad(wanted, exact, probe.double())
    bound = 1e-6 if out.dtype == torch.float32 and inputs[0].dtype == torch.float32 else 8e-3
    for n, (one, other) in enumerate(zip((out, *found), (wanted, *wanted_gradients), strict=True)):
        one, other = one.detach().double(), other.detach()
        worst = float((one - other).abs().max() / other.abs().max())
        assert worst < bound, f"{n}: {worst:.1e}"


def _rms(x: Tensor, weight: Tensor, eps: float, offset: float = 0.0) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * (offset + weight)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [16, 48, 576, 50])  # 50: no whole vectors
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_rms_norm(way: str, dtype: torch.dtype, width: int, offset: float) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(37, width).to(dtype) * 3, torch.randn(width)
    _check(lambda x, w: rms_norm(x, w, 1e-5, None, offset), lambda x, w: _rms(x, w, 1e-5, offset), x, weight)


def test_rms_norm_answers_in_another_type(way: str) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(9, 64), torch.randn(64)
    out = rms_norm(x, weight, 1e-5, torch.bfloat16)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, _rms(x, weight, 1e-5).bfloat16(), rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_heads_within_a_buffer_are_normed_in_place_and_pulled_back_in_place(way: str, dtype: torch.dtype) -> None:
    """Head norms read some heads of a fused buffer; their gradient takes the place of the one given."""
    torch.manual_seed(0)
    buffer, weight = torch.randn(11, 7, 32).to(dtype), torch.randn(32)
    heads = buffer[:, 2:5]
    exact = heads.double().requires_grad_()
    wanted = _rms(exact, weight.double(), 1e-6)
    dbuffer = torch.randn_like(buffer)
    untouched = dbuffer[:, 5:].clone()
    (wanted_dx,) = torch.autograd.grad(wanted, exact, dbuffer[:, 2:5].double())
    before = heads.clone()
    normalise_backward(dbuffer[:, 2:5], heads, weight, 1e-6, dbuffer[:, 2:5], None, add=False)
    normalise(heads, weight, 1e-6, heads)
    bound = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(buffer[:, 2:5].double(), wanted.detach(), rtol=bound, atol=bound)
    torch.testing.assert_close(dbuffer[:, 2:5].double(), wanted_dx, rtol=bound, atol=bound)
    assert torch.equal(dbuffer[:, 5:], untouched)
    assert not torch.equal(before, heads)


def test_a_gradient_is_added_where_asked(way: str) -> None:
    torch.manual_seed(0)
    x, dy, weight, dx = torch.randn(5, 32), torch.randn(5, 32).bfloat16(), torch.randn(32), torch.randn(5, 32)
    dweight = torch.ones(32)
    alone, added, own = torch.empty(5, 32), dx.clone(), torch.zeros(32)
    normalise_backward(dy, x, weight, 1e-5, alone, own, add=False)
    normalise_backward(dy, x, weight, 1e-5, added, dweight)
    torch.testing.assert_close(added, dx + alone)
    torch.testing.assert_close(dweight, own + 1)


class _Gated(torch.autograd.Function):
    """The gate as a layer calls it: the product kept, its gradient one buffer."""

    @staticmethod
    def forward(ctx: Any, both: Tensor, kind: Kind) -> Tensor:
        ctx.save_for_backward(both)
        ctx.kind = kind
        out = both.new_empty(both.shape[0], both.shape[1] // 2)
        gate(both, out, kind)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (both,) = ctx.saved_tensors
        dboth = torch.empty_like(both)
        gate_backward(grads[0], both, dboth, None, ctx.kind)
        return dboth, None


def _gated(both: Tensor, kind: Kind) -> Tensor:
    return _Gated.apply(both, kind)  # type: ignore[no-any-return, no-untyped-call]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [16, 1536, 24])
def test_gates(way: str, dtype: torch.dtype, width: int) -> None:
    torch.manual_seed(0)
    both = torch.randn(13, 2 * width).to(dtype) * 4
    _check(lambda x: _gated(x, "silu"), lambda x: functional.silu(x[:, :width]) * x[:, width:], both)
    tanh_form: Compute = lambda x: functional.gelu(x[:, :width], approximate="tanh")  # noqa: E731
    _check(lambda x: _gated(x, "gelu"), lambda x: tanh_form(x) * x[:, width:], both)


def test_a_gates_gradient_takes_its_inputs_place_and_its_product_comes_along(way: str) -> None:
    torch.manual_seed(0)
    both, dy = torch.randn(6, 64), torch.randn(6, 32)
    product, dboth, again = torch.empty(6, 32), torch.empty(6, 64), torch.empty(6, 32)
    gate(both, product)
    gate_backward(dy, both, dboth, None)
    gate_backward(dy, both, both, again)
    torch.testing.assert_close(both, dboth)
    torch.testing.assert_close(again, product)


def test_gates_far_out_stay_finite_and_nan_stays_nan(way: str) -> None:
    both = torch.tensor([[-300.0, 300.0, float("nan"), -1e4] * 4 + [2.0] * 16])
    out = _gated(both, "silu")[0].view(4, 4)[0]
    assert out[0].abs() < 1e-6
    assert out[1] == 600.0
    assert out[2].isnan()
    assert out[3].abs() < 1e-6


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("width", "turning"), [(64, 64), (80, 32), (24, 24)])
def test_rotary_positions(way: str, dtype: torch.dtype, width: int, turning: int) -> None:
    torch.manual_seed(0)
    angles = torch.rand(11, turning // 2) * 7
    rotation = Rotation(angles.cos(), angles.sin())

    def turned(x: Tensor) -> Tensor:
        """As transformers' apply_rotary_pos_emb does it, with rotate_half."""
        cos, sin = (torch.cat([part, part], -1)[:, None].double() for part in (rotation.cos, rotation.sin))
        head, rest = x[..., :turning], x[..., turning:]
        swapped = torch.cat([-head[..., turning // 2 :], head[..., : turning // 2]], -1)
        return torch.cat([head * cos + swapped * sin, rest], -1)

    x = torch.randn(11, 5, width).to(dtype)
    _check(lambda x: rotate(x[:, 1:4], rotation), lambda x: turned(x[:, 1:4]), x)
