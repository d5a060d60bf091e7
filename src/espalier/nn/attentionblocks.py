"""Attention over segments in plain torch: batched products over blocks of queries, on any device, in float32 or 64.

The reading of what `espalier.nn.attention` computes where no kernel does it. Scores live for one block at a time; the
backward pass makes them again from the log-sum-exp of each row.

Legend: t positions, h heads, kv key heads, g = h / kv heads to a key head, d head width, n keys a segment sees.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

BLOCK = 128

Segments = npt.NDArray[np.int32]


def attend(
    q: Tensor, k: Tensor, v: Tensor, segments: Segments, scale: float, window: int | None, softcap: float | None
) -> tuple[Tensor, Tensor]:
    """out (t, h, d) in q's type and the log-sum-exp (t, h) of each row's scores, in float32 or 64."""
    t, h, d = q.shape
    work = torch.float64 if q.dtype == torch.float64 else torch.float32
    out = torch.zeros((t, h, d), dtype=q.dtype, device=q.device)
    lse = torch.zeros((t, h), dtype=work, device=q.device)
    for segment in segments.tolist():
        keys, values = _gather(k, segment, work), _gather(v, segment, work)
        for rows, seen, hidden in _blocks(segment, window, q.device):
            scores, _ = _score(q[rows].to(work), keys[:, seen], scale, softcap, hidden)
            total = scores.logsumexp(-1)
            p = scores.sub_(total[..., None]).exp_()
            out[rows] = _by_row(torch.bmm(p, values[:, seen]), h).to(q.dtype)
            lse[rows] = _by_row(total[..., None], h)[..., 0]
    return out, lse


def attend_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    segments: Segments,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v in the type of `lse`."""
    h, work = q.shape[1], lse.dtype
    dq, dk, dv = (torch.zeros(x.shape, dtype=work, device=x.device) for x in (q, k, v))
    for segment in segments.tolist():
        keys, values = _gather(k, segment, work), _gather(v, segment, work)
        dkeys, dvalues = torch.zeros_like(keys), torch.zeros_like(values)
        for rows, seen, hidden in _blocks(segment, window, q.device):
            queries, given = q[rows].to(work), dout[rows].to(work)
            delta = (given * out[rows].to(work)).sum(-1, keepdim=True)  # (b, h, 1)
            scores, slope = _score(queries, keys[:, seen], scale, softcap, hidden)
            kv = keys.shape[0]
            p = scores.sub_(_by_key_head(lse[rows][..., None], kv)).exp_()
            given = _by_key_head(given, kv)
            dvalues[:, seen] += torch.bmm(p.transpose(1, 2), given)
            ds = torch.bmm(given, values[:, seen].transpose(1, 2)).sub_(_by_key_head(delta, kv)).mul_(p)
            ds = ds.mul_(scale if slope is None else slope)
            dq[rows] = _by_row(torch.bmm(ds, keys[:, seen]), h)
            dkeys[:, seen] += torch.bmm(ds.transpose(1, 2), _by_key_head(queries, kv))
        _scatter(dk, dkeys, segment)
        _scatter(dv, dvalues, segment)
    return dq, dk, dv


def _gather(x: Tensor, segment: list[int], work: torch.dtype) -> Tensor:
    """The keys or values a segment may see, its prefix first: (kv, n, d)."""
    start, end, prefix_start, prefix_end = segment
    own = x[start:end]
    seen = torch.cat([x[prefix_start:prefix_end], own]) if prefix_end > prefix_start else own
    return seen.transpose(0, 1).to(work)


def _scatter(total: Tensor, part: Tensor, segment: list[int]) -> None:
    start, end, prefix_start, prefix_end = segment
    before = prefix_end - prefix_start
    part = part.transpose(0, 1)
    total[prefix_start:prefix_end] += part[:before]
    total[start:end] += part[before:]


def _blocks(segment: list[int], window: int | None, device: torch.device) -> Iterator[tuple[slice, slice, Tensor]]:
    """Per block of queries: its rows in the pack, the keys it may see, and which of those each query may not (b, n)."""
    start, end, prefix_start, prefix_end = segment
    before = prefix_end - prefix_start
    for first in range(0, end - start, BLOCK):
        last = min(first + BLOCK, end - start)
        low = 0 if window is None else max(0, before + first - window + 1)
        query = torch.arange(before + first, before + last, device=device)[:, None]
        key = torch.arange(low, before + last, device=device)[None]
        hidden = key > query
        if window is not None:
            hidden |= key <= query - window
        yield slice(start + first, start + last), slice(low, before + last), hidden


def _score(
    queries: Tensor, keys: Tensor, scale: float, softcap: float | None, hidden: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Scores (kv, b g, n), hidden ones -inf; and with a cap their derivative by the plain product."""
    kv = keys.shape[0]
    scores = torch.bmm(_by_key_head(queries, kv), keys.transpose(1, 2)).mul_(scale)
    slope = None
    if softcap is not None:
        bent = (scores / softcap).tanh_()
        scores = bent * softcap
        slope = bent.square_().neg_().add_(1.0).mul_(scale)
    b, n = hidden.shape
    scores.view(kv, b, -1, n).masked_fill_(hidden[None, :, None], float("-inf"))
    return scores, slope


def _by_key_head(x: Tensor, kv: int) -> Tensor:
    """(b, h, d) -> (kv, b g, d)"""
    b, h, d = x.shape
    return x.view(b, kv, h // kv, d).transpose(0, 1).reshape(kv, -1, d)


def _by_row(x: Tensor, h: int) -> Tensor:
    """(kv, b g, d) -> (b, h, d)"""
    kv, rows, d = x.shape
    g = h // kv
    return x.view(kv, rows // g, g, d).transpose(0, 1).reshape(rows // g, h, d)
