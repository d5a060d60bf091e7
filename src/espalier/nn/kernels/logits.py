"""The kernels over rows of logits, by ctypes: log-probabilities of picks, gradients, the largest (sources/logits.c)."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from espalier.nn.kernels.compiling import kernels


class _Logits(ctypes.Structure):
    """`struct logits`: keep the two alike."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("z", "bias", "targets", "weights", "logp")),
        *((name, ctypes.c_int64) for name in ("rows", "classes", "row", "picks")),
        ("is_half", ctypes.c_int32),
        ("softcap", ctypes.c_float),
        ("scale", ctypes.c_float),
    ]


def can_pick(z: Tensor) -> bool:
    """Rows of logits (r, c) in bfloat16 or float32 on the CPU, and the kernels are there."""
    fits = z.device.type == "cpu" and z.dtype in (torch.float32, torch.bfloat16) and z.stride(1) == 1
    return fits and kernels().library is not None


def pick(
    z: Tensor,
    targets: Tensor,
    weights: Tensor | None,
    logp: Tensor | None,
    *,
    bias: Tensor | None,
    softcap: float | None,
    scale: float,
) -> None:
    """Log-probabilities (r, k) of targets (r, k) int64 into `logp`; with weights (r, k) the gradient in z's place.

    That is the gradient of sum(weights * -logp) by z. All but z dense; bias (c), weights and logp float32.
    """
    call = _Logits(z=z.data_ptr(), targets=targets.data_ptr(), rows=z.shape[0], classes=z.shape[1], row=z.stride(0))
    call.picks, call.is_half = targets.shape[1], int(z.dtype == torch.bfloat16)
    call.bias = None if bias is None else bias.data_ptr()
    call.weights = None if weights is None else weights.data_ptr()
    call.logp = None if logp is None else logp.data_ptr()
    call.softcap, call.scale = softcap or 0.0, scale
    library = kernels().library
    if library is None or library.espalier_logits(ctypes.byref(call)):
        raise MemoryError("no memory for a row's picks")


def survey(z: Tensor) -> tuple[list[int], list[bool]]:
    """Of each row of z (r, c): the first of its largest (of no meaning where not all are finite), whether all are."""
    if z.dtype != torch.float32 or z.stride(1) != 1 or not can_pick(z):
        return z.argmax(-1).tolist(), z.isfinite().all(-1).tolist()
    rows, classes = z.shape
    best, sound = torch.empty(rows, dtype=torch.int64), torch.empty(rows, dtype=torch.bool)
    library = kernels().library
    if library is not None:
        call = (z.data_ptr(), rows, classes, z.stride(0), best.data_ptr(), sound.data_ptr())
        library.espalier_survey(*map(ctypes.c_void_p, call))
    return best.tolist(), sound.tolist()
