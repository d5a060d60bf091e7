"""The kernels that go row by row, by ctypes: RMSNorm, rotary positions and gates (sources/rows.c).

Each function writes into tensors made by its caller and expects what its `can_` says.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from espalier.nn.kernels.compiling import kernels

_LANES = 16  # of the widest vectors: a row's width is a multiple
_DTYPES = (torch.float32, torch.bfloat16)


class _Places(ctypes.Structure):
    """`struct places`"""

    _fields_ = [("outer", ctypes.c_int64), ("row", ctypes.c_int64)]


class _Norm(ctypes.Structure):
    """`struct norm`: keep the two alike."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("x", "dy", "y", "dx", "gain", "dgain")),
        *((name, _Places) for name in ("x_at", "y_at", "dx_at")),
        *((name, ctypes.c_int64) for name in ("rows", "width", "inner")),
        *((name, ctypes.c_int32) for name in ("x_half", "y_half")),
        ("eps", ctypes.c_float),
    ]


class _Rotary(ctypes.Structure):
    """`struct rotary`"""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("x", "y", "cos", "sin")),
        *((name, ctypes.c_int64) for name in ("tokens", "heads", "width", "turning", "row", "head")),
        ("is_half", ctypes.c_int32),
        ("side", ctypes.c_float),
    ]


class _Gate(ctypes.Structure):
    """`struct gate`"""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("both", "dy", "y", "dboth")),
        *((name, ctypes.c_int64) for name in ("rows", "width", "both_row", "y_row", "dy_row", "dboth_row")),
        *((name, ctypes.c_int32) for name in ("is_half", "gelu")),
    ]


def can_norm(x: Tensor, *others: Tensor) -> bool:
    """Rows of whole vectors in two or three dimensions; all of x's shape, each with strides of its own."""
    return x.ndim in (2, 3) and all(_fits(one) for one in (x, *others))


def norm(x: Tensor, gain: Tensor, eps: float, y: Tensor) -> None:
    """y = x / rms(x) * gain; gain (m) float32, y may be x."""
    call = _norm(x, gain, eps, y)
    call.y = y.data_ptr()
    _library().espalier_norm(ctypes.byref(call))


def norm_backward(
    dy: Tensor, x: Tensor, gain: Tensor, eps: float, dx: Tensor, dgain: Tensor | None, *, add: bool
) -> None:
    """The gradient of x added to dx, or written there; dx has x's type and may be dy; dgain (m) float32 is added to."""
    call = _norm(x, gain, eps, dy)
    call.dy, call.dx, call.dx_at = dy.data_ptr(), dx.data_ptr(), _places(dx)
    call.dgain = None if dgain is None else dgain.data_ptr()
    _library().espalier_norm_backward(ctypes.byref(call), int(add))


def can_rotate(x: Tensor, cos: Tensor) -> bool:
    """x (t, h, d) with whole vectors to each turning half."""
    turning = cos.shape[-1]
    return (
        _fits(x) and x.ndim == 3 and cos.dtype == torch.float32 and turning % _LANES == 0 and 2 * turning <= x.shape[-1]
    )


def rotate(x: Tensor, cos: Tensor, sin: Tensor, y: Tensor, *, back: bool) -> None:
    """y (t, h, d) dense = x turned by cos and sin (t, w/2) float32, or turned back."""
    t, h, d = x.shape
    call = _Rotary(x=x.data_ptr(), y=y.data_ptr(), cos=cos.data_ptr(), sin=sin.data_ptr(), tokens=t, heads=h, width=d)
    call.turning, call.row, call.head = cos.shape[-1], x.stride(0), x.stride(1)
    call.is_half, call.side = _half(x), -1.0 if back else 1.0
    _library().espalier_rotate(ctypes.byref(call))


def can_gate(both: Tensor, *others: Tensor) -> bool:
    """both (t, 2 f) with whole vectors to f, and others of as many rows and the same type."""
    whole = both.ndim == 2 and both.shape[1] % (2 * _LANES) == 0
    return whole and all(_fits(one) and one.dtype == both.dtype for one in (both, *others))


def gate(both: Tensor, y: Tensor, *, gelu: bool) -> None:
    """y (t, f) = gate(both[:, :f]) * both[:, f:]"""
    call = _gate(both, gelu)
    call.y, call.y_row = y.data_ptr(), y.stride(0)
    _library().espalier_gate(ctypes.byref(call), 0)


def gate_backward(dy: Tensor, both: Tensor, dboth: Tensor, y: Tensor | None, *, gelu: bool) -> None:
    """dboth (t, 2 f), which may be both: its gradient for dy (t, f); the product again into y where one is given."""
    call = _gate(both, gelu)
    call.dy, call.dy_row, call.dboth, call.dboth_row = dy.data_ptr(), dy.stride(0), dboth.data_ptr(), dboth.stride(0)
    if y is not None:
        call.y, call.y_row = y.data_ptr(), y.stride(0)
    _library().espalier_gate(ctypes.byref(call), 1)


def _norm(x: Tensor, gain: Tensor, eps: float, like_y: Tensor) -> _Norm:
    width = x.shape[-1]
    call = _Norm(x=x.data_ptr(), gain=gain.data_ptr(), rows=x.numel() // width, width=width, eps=eps)
    call.inner = x.shape[1] if x.ndim == 3 else 1
    call.x_at, call.y_at, call.x_half, call.y_half = _places(x), _places(like_y), _half(x), _half(like_y)
    return call


def _places(x: Tensor) -> _Places:
    return _Places(x.stride(0), x.stride(1) if x.ndim == 3 else 0)


def _gate(both: Tensor, gelu: bool) -> _Gate:
    rows, width = both.shape
    call = _Gate(both=both.data_ptr(), rows=rows, width=width // 2, both_row=both.stride(0))
    call.is_half, call.gelu = _half(both), int(gelu)
    return call


def _fits(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype in _DTYPES
        and x.stride(-1) == 1
        and x.shape[-1] % _LANES == 0
        and x.numel() > 0
        and kernels().library is not None
    )


def _half(x: Tensor) -> int:
    return int(x.dtype == torch.bfloat16)


def _library() -> ctypes.CDLL:
    library = kernels().library
    if library is None:
        raise RuntimeError("no compiled kernels: ask can_norm, can_rotate or can_gate first")
    return library
