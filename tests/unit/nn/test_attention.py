"""Attention inside segments: compiled and in plain torch, against masks written out in float64."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from espalier.nn import attention
from espalier.nn.attention import Reach, Segments, attend, attend_backward, segment_attention
from espalier.nn.kernels.compiling import SWITCH, kernels_in_use
from espalier.nn.rotary import Rotation, rotate

WAYS = ("compiled", "torch")


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each test once with the kernels and once without; the first where there is a compiler."""
    if request.param == "torch":
        monkeypatch.setenv(SWITCH, "off")
    elif kernels_in_use()[0] != "compiled":
        pytest.skip(kernels_in_use()[1])
    yield request.param


def _segments(*rows: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.array([(*row, 0, 0) if len(row) == 2 else row for row in rows], dtype=np.int32)


# A prompt with two answers, a document of one token, a long one: prefixes, remainders of every size.
PACK = _segments((0, 21), (21, 30, 0, 21), (30, 47, 0, 21), (47, 48), (48, 200))


def _may_see(segments: np.ndarray[Any, Any], t: int, window: int | None) -> Tensor:
    """(t, t): which keys a query sees, from the words of the definition."""
    seen = torch.zeros(t, t, dtype=torch.bool)
    for start, end, prefix_start, prefix_end in segments.tolist():
        keys = [*range(prefix_start, prefix_end), *range(start, end)]
        for query in range(start, end):
            own = keys.index(query)
            first = 0 if window is None else max(0, own - window + 1)
            seen[query, keys[first : own + 1]] = True
    return seen


def _reference(
    qkv: Tensor,
    heads: int,
    segments: np.ndarray[Any, Any],
    scale: float,
    rotation: Rotation | None,
    window: int | None,
    cap: float | None,
) -> Tensor:
    """Full scores, masked, in the type of qkv, by autograd's own operations."""
    kv = (qkv.shape[1] - heads) // 2
    q, k, v = qkv.split([heads, kv, kv], 1)  # type: ignore[no-untyped-call]
    if rotation is not None:
        q, k = _turned(q, rotation), _turned(k, rotation)
    k, v = k.repeat_interleave(heads // kv, 1), v.repeat_interleave(heads // kv, 1)
    scores = torch.einsum("qhd,khd->hqk", q, k) * scale
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    scores = scores.masked_fill(~_may_see(segments, len(qkv), window), float("-inf"))
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)


def _turned(x: Tensor, rotation: Rotation) -> Tensor:
    half = rotation.width // 2
    cos, sin = rotation.cos[:, None].to(x.dtype), rotation.sin[:, None].to(x.dtype)
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)


def _rotation(t: int, width: int) -> Rotation:
    angles = torch.rand(t, width // 2) * 6
    return Rotation(angles.cos(), angles.sin())


class _Fused(torch.autograd.Function):
    """Attention of one buffer of heads, qkv (t, h + 2 kv, d), its gradient one too: as a layer calls it."""

    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, heads: int, segments: Segments, rotation: Rotation | None, reach: Reach
    ) -> Tensor:
        out, lse = attend(*_parts(qkv, heads), segments, reach, rotation)
        ctx.save_for_backward(qkv, out, lse)
        ctx.rest = heads, segments, rotation, reach
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (qkv, out, lse), (heads, segments, rotation, reach) = ctx.saved_tensors, ctx.rest
        dqkv = torch.empty_like(qkv)
        saved = (*_parts(qkv, heads), out, lse)
        attend_backward(grads[0], saved, segments, reach, rotation, _parts(dqkv, heads))
        return dqkv, None, None, None, None


def _parts(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    key_heads = (qkv.shape[1] - heads) // 2
    return qkv[:, :heads], qkv[:, heads : heads + key_heads], qkv[:, heads + key_heads :]


def _attend_fused(
    qkv: Tensor,
    heads: int,
    segments: Segments,
    scale: float,
    rotation: Rotation | None = None,
    window: int | None = None,
    cap: float | None = None,
) -> Tensor:
    return _Fused.apply(qkv, heads, segments, rotation, Reach(scale, window, cap))  # type: ignore[no-any-return, no-untyped-call]


def _check(
    heads: int,
    kv: int,
    d: int,
    segments: np.ndarray[Any, Any],
    dtype: torch.dtype,
    *,
    turning: int = 0,
    window: int | None = None,
    cap: float | None = None,
    seed: int = 0,
) -> None:
    """Answer and gradient beside the reference: to 1e-6 of the largest in float32, to its rounding in bfloat16."""
    torch.manual_seed(seed)
    t = int(segments[:, :2].max())
    qkv = torch.randn(t, heads + 2 * kv, d).to(dtype).requires_grad_()
    rotation = _rotation(t, turning) if turning else None
    probe = torch.randn(t, heads, d).to(dtype)
    out = _attend_fused(qkv, heads, segments, d**-0.5, rotation, window, cap)
    (gradient,) = torch.autograd.grad(out, qkv, probe)
    exact = qkv.detach().double().requires_grad_()
    wanted = _reference(exact, heads, segments, d**-0.5, rotation, window, cap)
    (wanted_gradient,) = torch.autograd.grad(wanted, exact, probe.double())
    parts = {"q": slice(heads), "k": slice(heads, heads + kv), "v": slice(heads + kv, None)}
    pairs = {"out": (out, wanted), **{name: (gradient[:, at], wanted_gradient[:, at]) for name, at in parts.items()}}
    bound = 1e-6 if dtype == torch.float32 else 1e-2
    for name, (ours, theirs) in pairs.items():
        ours, theirs = ours.detach(), theirs.detach()
        largest = max(float(theirs.abs().max()), 3.0)  # where every row sees one key, scores have no gradient
        worst = float((ours.double() - theirs).abs().max()) / largest
        assert worst < bound, f"{name}: {worst:.1e}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("heads", "kv", "d", "turning"),
    [(4, 4, 16, 16), (9, 3, 64, 64), (6, 2, 32, 16), (4, 2, 80, 32), (8, 1, 128, 128), (3, 3, 48, 0)],
)
def test_it_equals_full_masked_scores(way: str, heads: int, kv: int, d: int, turning: int, dtype: torch.dtype) -> None:
    _check(heads, kv, d, PACK, dtype, turning=turning)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("window", "cap"), [(1, None), (13, None), (500, None), (None, 3.0), (40, 30.0)])
def test_windows_and_caps_hold(way: str, window: int | None, cap: float | None, dtype: torch.dtype) -> None:
    _check(4, 2, 32, PACK, dtype, turning=32, window=window, cap=cap)


@st.composite
def _layouts(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Documents side by side, some with answers that have the document as prefix."""
    rows: list[tuple[int, int, int, int]] = []
    at = 0
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.integers(1, 50))
        rows.append((at, at + size, 0, 0))
        prefix = (at, at + size)
        at += size
        for _ in range(draw(st.integers(0, 2))):
            size = draw(st.integers(1, 20))
            rows.append((at, at + size, *prefix))
            at += size
    return np.array(rows, dtype=np.int32)


@settings(max_examples=20)
@given(
    segments=_layouts(),
    groups=st.sampled_from([(1, 1), (2, 1), (3, 2), (7, 1)]),
    d=st.sampled_from([16, 32, 64, 80, 128]),
    window=st.sampled_from([None, 1, 9, 33]),
    cap=st.sampled_from([None, 5.0]),
    seed=st.integers(0, 3),
)
def test_any_layout_equals_full_masked_scores(
    segments: np.ndarray[Any, Any],
    groups: tuple[int, int],
    d: int,
    window: int | None,
    cap: float | None,
    seed: int,
) -> None:
    group, kv = groups
    _check(group * kv, kv, d, segments, torch.float32, window=window, cap=cap, seed=seed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_parts_apart_equal_the_fused_buffer(way: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    t = int(PACK[:, 1].max())
    qkv, probe = torch.randn(t, 8, 32).to(dtype), torch.randn(t, 4, 32).to(dtype)
    rotation = _rotation(t, 32)
    fused = qkv.clone().requires_grad_()
    apart = [part.clone().requires_grad_() for part in (qkv[:, :4], qkv[:, 4:6], qkv[:, 6:])]
    one = _attend_fused(fused, 4, PACK, 0.2, rotation)
    other = segment_attention(rotate(apart[0], rotation), rotate(apart[1], rotation), apart[2], PACK, 0.2)
    exact: dict[str, float] = {}
    bound = exact if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}  # turned back before rounding, or after
    # Kernels without products of bfloat16 pairs multiply floats: what they have turned themselves they need not round.
    rounds = way == "torch" or "bf16 pairs" in kernels_in_use()[1]
    torch.testing.assert_close(one, other, **(exact if rounds else bound))  # type: ignore[arg-type]
    (whole,) = torch.autograd.grad(one, fused, probe)
    parts = torch.autograd.grad(other, apart, probe)
    torch.testing.assert_close(whole, torch.cat(parts, 1), **bound)  # type: ignore[arg-type]


def test_a_position_in_no_segment_answers_zero(way: str) -> None:
    qkv = torch.randn(10, 6, 16, requires_grad=True)
    out = _attend_fused(qkv, 2, _segments((3, 7)), 0.25)
    (gradient,) = torch.autograd.grad(out.sum(), qkv)
    outside = torch.tensor([0, 1, 2, 7, 8, 9])
    assert not out[outside].any()
    assert not gradient[outside].any()
    assert out[3:7].any()


def test_the_same_numbers_give_the_same_bytes(way: str) -> None:
    torch.manual_seed(0)
    qkv, probe = torch.randn(200, 8, 32).bfloat16().requires_grad_(), torch.randn(200, 4, 32).bfloat16()

    def run() -> tuple[Tensor, Tensor]:
        out = _attend_fused(qkv, 4, PACK, 0.2)
        return out, torch.autograd.grad(out, qkv, probe)[0]

    for one, other in zip(run(), run(), strict=True):
        assert torch.equal(one, other)


def test_what_is_not_a_number_stays_seen(way: str) -> None:
    qkv = torch.randn(48, 6, 16)
    qkv[20, 4] = float("nan")  # a value
    out = _attend_fused(qkv, 2, _segments((0, 24), (24, 48)), 0.25)
    assert out[20:24, 0].isnan().all()
    assert not out[24:].isnan().any()


def test_segments_beyond_the_pack_are_refused(way: str) -> None:
    with pytest.raises(IndexError, match="beyond the 10 positions"):
        _attend_fused(torch.randn(10, 6, 16), 2, _segments((3, 11)), 0.25)


class TestVarlen:
    """The branch for CUDA, beside a strict double of torch's function that computes on the CPU."""

    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = []

        def varlen_attn(
            query: Tensor,
            key: Tensor,
            value: Tensor,
            cu_seq_q: Tensor,
            cu_seq_k: Tensor | None,
            max_q: int,
            max_k: int,
            *,
            scale: float | None = None,
            window_size: tuple[int, int] = (-1, -1),
            enable_gqa: bool = False,
        ) -> Tensor:
            """As documented for torch 2.13: contiguous last dimension, int32 bounds, 16-bit numbers."""
            assert cu_seq_k is not None and cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
            assert query.dtype in (torch.bfloat16, torch.float16)
            assert enable_gqa or query.shape[1] == key.shape[1]
            assert window_size[1] == 0 and max_q == max_k == int((cu_seq_q[1:] - cu_seq_q[:-1]).max())
            made.append({"window": window_size, "bounds": cu_seq_q.tolist()})
            bounds = cu_seq_q.tolist()
            segments = _segments(*pairwise(bounds))
            window = None if window_size[0] < 0 else window_size[0] + 1
            qkv = torch.cat([query, key, value], 1).double()
            return _reference(qkv, query.shape[1], segments, scale or 1.0, None, window, None).to(query.dtype)

        module = types.ModuleType("torch.nn.attention.varlen")
        module.varlen_attn = varlen_attn  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", module)
        return made

    @pytest.mark.parametrize("window", [None, 7])
    def test_it_computes_what_the_kernel_does(self, calls: list[dict[str, Any]], window: int | None) -> None:
        torch.manual_seed(0)
        segments = _segments((0, 20), (20, 21), (21, 50))
        qkv = torch.randn(50, 8, 16).bfloat16()
        q, k, v = qkv[:, :4], qkv[:, 4:6], qkv[:, 6:]
        reach = Reach(0.25, window)
        assert attention._fits_varlen(q, segments, reach)
        ours = attention._varlen(q, k, v, segments, reach)
        torch.testing.assert_close(ours, segment_attention(q, k, v, segments, 0.25, window), rtol=2e-2, atol=2e-2)
        assert calls == [{"window": (-1 if window is None else window - 1, 0), "bounds": [0, 20, 21, 50]}]

    @pytest.mark.parametrize(
        ("segments", "reach", "dtype"),
        [
            (PACK, Reach(1.0), torch.bfloat16),  # a prefix
            (_segments((0, 200)), Reach(1.0, softcap=2.0), torch.bfloat16),
            (_segments((0, 200)), Reach(1.0), torch.float32),
            (_segments((0, 190)), Reach(1.0), torch.bfloat16),  # not all of the pack
            (_segments((0, 90), (100, 200)), Reach(1.0), torch.bfloat16),  # a gap
        ],
    )
    def test_it_is_left_alone_where_it_cannot(
        self, segments: np.ndarray[Any, Any], reach: attention.Reach, dtype: torch.dtype
    ) -> None:
        assert not attention._fits_varlen(torch.zeros(200, 4, 16, dtype=dtype), segments, reach)
