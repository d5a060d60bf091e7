"""The compiled attention by ctypes: `espalier_attend` of sources/attention.c over torch's own memory.

Legend: t positions, h heads, kv key heads, d head width.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from espalier.nn.kernels.compiling import kernels

_MAX_WIDTH = 256
_LANES = 16  # of the widest vectors: a head's width is a multiple


class _Stride(ctypes.Structure):
    _fields_ = [("row", ctypes.c_int64), ("head", ctypes.c_int64)]


class _Attention(ctypes.Structure):
    """`struct attention`: keep the two alike."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("q", "k", "v", "out", "lse", "dout", "dq", "dk", "dv")),
        *((name, ctypes.c_void_p) for name in ("cos", "sin", "segments")),
        *((f"{name}_stride", _Stride) for name in ("q", "k", "v", "dout", "dq", "dk", "dv")),
        *((name, ctypes.c_int64) for name in ("count", "tokens", "heads", "key_heads", "width", "turning", "window")),
        ("scale", ctypes.c_float),
        ("softcap", ctypes.c_float),
    ]


@dataclass(frozen=True, slots=True)
class Layout:
    """What both passes share: segments (s, 4) int32, the score's scale and cap, the window, the angles if any turn."""

    segments: npt.NDArray[np.int32]
    scale: float
    window: int | None
    softcap: float | None
    cos: Tensor | None  # (t, w/2) float32
    sin: Tensor | None


def can_attend(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> bool:
    """Whether the kernel takes these: bfloat16 or float32 on the CPU, a width of whole vectors, and it is there."""
    d = q.shape[-1]
    turning = 0 if layout.cos is None else layout.cos.shape[-1]
    return (
        q.device.type == "cpu"
        and q.dtype in (torch.bfloat16, torch.float32)
        and q.dtype == k.dtype == v.dtype
        and d % _LANES == 0
        and d <= _MAX_WIDTH
        and 2 * turning <= d
        and layout.scale > 0
        and (layout.cos is None or (layout.cos.dtype == torch.float32 and len(layout.cos) == len(q)))
        and all(x.stride(-1) == 1 for x in (q, k, v))
        and kernels().library is not None
    )


def attend(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """out (t, h, d) in q's type, the log-sum-exp of each row's scores (t, h) float32."""
    out = _empty(q, layout.segments)
    lse = torch.zeros(q.shape[:2], dtype=torch.float32)
    call = _describe(q, k, v, layout)
    call.out, call.lse = out.data_ptr(), lse.data_ptr()
    _run(call, q.dtype, backward=False)
    return out, lse


def attend_backward(
    dout: Tensor,
    saved: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    layout: Layout,
    into: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Write the gradients of q, k and v into `into`, whose last dimension is contiguous."""
    q, k, v, out, lse = saved
    dout = dout.to(q.dtype)
    if dout.stride(-1) != 1:
        dout = dout.contiguous()
    call = _describe(q, k, v, layout)
    call.out, call.lse, call.dout, call.dout_stride = out.data_ptr(), lse.data_ptr(), dout.data_ptr(), _stride(dout)
    if not _cover(layout.segments, len(q)):
        for place in into:
            place.zero_()
    for name, place in zip(("dq", "dk", "dv"), into, strict=True):
        setattr(call, name, place.data_ptr())
        setattr(call, f"{name}_stride", _stride(place))
    _run(call, q.dtype, backward=True)


def _describe(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> _Attention:
    t, h, d = q.shape
    call = _Attention(count=len(layout.segments), tokens=t, heads=h, key_heads=k.shape[1], width=d)
    for name, x in (("q", q), ("k", k), ("v", v)):
        setattr(call, name, x.data_ptr())
        setattr(call, f"{name}_stride", _stride(x))
    call.segments = layout.segments.ctypes.data
    if layout.cos is not None and layout.sin is not None:
        call.cos, call.sin, call.turning = layout.cos.data_ptr(), layout.sin.data_ptr(), layout.cos.shape[-1]
    call.scale, call.softcap, call.window = layout.scale, layout.softcap or 0.0, layout.window or 0
    return call


def _run(call: _Attention, dtype: torch.dtype, *, backward: bool) -> None:
    library = kernels().library
    if library is None or library.espalier_attend(ctypes.byref(call), int(dtype == torch.bfloat16), int(backward)):
        raise MemoryError("attention found no memory for its scratch")


def _stride(x: Tensor) -> _Stride:
    return _Stride(x.stride(0), x.stride(1))


def _empty(q: Tensor, segments: npt.NDArray[np.int32]) -> Tensor:
    make = torch.empty if _cover(segments, len(q)) else torch.zeros
    return make(q.shape, dtype=q.dtype)


def _cover(segments: npt.NDArray[np.int32], tokens: int) -> bool:
    """Whether every position is in a segment."""
    return int((segments[:, 1] - segments[:, 0]).sum()) == tokens
