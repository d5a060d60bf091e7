"""The likeliest tokens at rows of hidden states, and how likely they are: what a teacher says. In chunks, no gradient.

Legend: r rows, m model width, c vocabulary, k tokens kept of each row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from espalier.nn.crossentropy import CHUNK_ROWS, Head


def top_logp(hidden: Tensor, head: Head, k: int, *, limit: int) -> tuple[Tensor, Tensor]:
    """(ids int64, log-probabilities float32), (r, k) each, likeliest first; ids below `limit` only.

    Probabilities are over the whole vocabulary, so what the ids from `limit` on have is missing from the sum.
    """
    ids = torch.empty(len(hidden), k, dtype=torch.int64, device=hidden.device)
    logp = torch.empty(len(hidden), k, dtype=torch.float32, device=hidden.device)
    with torch.no_grad():
        for start in range(0, len(hidden), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            found = torch.log_softmax(logits_of(hidden[rows], head), -1)[:, :limit].topk(k, -1)
            ids[rows], logp[rows] = found.indices, found.values
    return ids, logp


def logits_of(hidden: Tensor, head: Head) -> Tensor:
    """cap(scale (hidden matrix^T + bias)), (r, c) float32."""
    z = (hidden.to(head.matrix.dtype) @ head.matrix.t()).float()
    if head.bias is not None:
        z = z + head.bias
    z = z * head.scale
    return z if head.softcap is None else torch.tanh(z / head.softcap) * head.softcap
