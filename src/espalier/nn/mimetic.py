"""Initial weights that already hold copying: previous-token heads in the first layer, match-and-copy heads further up.

A small model needs millions of tokens before induction heads (Olsson et al., arXiv:2209.11895) form by themselves;
written in, copying works after the first hundred thousand. Plain Llama weights come out, and training is free to
change them (the idea of mimetic initialisation: Trockman and Kolter, arXiv:2305.09828).

How: the embedding of each token is a random direction, with the first coordinate a constant. Layer 0's heads read
that constant through rotary frequencies shifted by 1 (or 2), so they attend one (or two) positions back whatever
stands there, and write that token's random projection into a subspace Q. In each induction layer a head asks for
positions whose Q (the token before) matches its own R (the token here), and copies what stands there towards the
output. Only slow rotary pairs carry the match, so distance hardly matters; therefore a large `rope_theta` is needed.
Knows no training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from espalier.core.errors import InvalidInput
from espalier.nn.shape import LeanShape

_CONSTANT = 0.1  # the first coordinate of every embedding
_PREVIOUS_GAIN = 0.05  # how loudly layer 0 writes the token before
_FAST_PAIRS = 6  # rotary pairs that turn fast enough to tell neighbours apart
_MATCH_GAIN = 1.7
_COPY_GAINS = (0.17, 0.10)  # first induction layer, later ones


def write_copying(weights: dict[str, Tensor], shape: LeanShape, *, seed: int, layers: Sequence[int] = (1, 3)) -> None:
    """Write the heads into fresh `weights` in place; `layers` get the match-and-copy heads.

    Raises InvalidInput for a shape the construction does not fit: heads of 32, as many key heads, at least 3 of them,
    width >= 128.
    """
    if shape.head_width != 32 or shape.key_heads != shape.heads or shape.heads < 3 or shape.width < 128:
        raise InvalidInput(
            "mimetic initialisation needs heads of 32, as many key heads as heads, at least 3 heads and a width of 128",
            hint="change the shape, or set `mimetic: false`",
        )
    draw = torch.Generator().manual_seed(seed)
    here = _directions(shape.width, 64, draw)  # R: (m, 64), how a token is read where it stands
    before = _directions(shape.width, 96, draw)  # Q: (m, 96), where the token before is written
    with torch.no_grad():
        table = weights["model.embed_tokens.weight"]
        table.normal_(0, 0.02, generator=draw)
        table[:, 0] = _CONSTANT
        _write_previous(weights, shape, here, before)
        for order, layer in enumerate(layers):
            gain = _COPY_GAINS[0] if order == 0 else _COPY_GAINS[1]
            _write_match(weights, shape, layer, here, before, _directions(shape.width, 96, draw), gain)


def _directions(width: int, count: int, draw: torch.Generator) -> Tensor:
    """Orthonormal columns that leave the constant coordinate free, (m, count)."""
    out = torch.zeros(width, count)
    out[1:] = torch.linalg.qr(torch.randn(width - 1, count, generator=draw))[0]
    return out


def _write_previous(weights: dict[str, Tensor], shape: LeanShape, here: Tensor, before: Tensor) -> None:
    q, k, v, o = (weights[f"model.layers.0.self_attn.{name}_proj.weight"] for name in "qkvo")
    d = shape.head_width
    half = d // 2
    angle = torch.tensor(shape.frequencies)
    heads = ((1, here[:, :32], before[:, :32]), (1, here[:, 32:], before[:, 32:64]), (2, here[:, :32], before[:, 64:]))
    for head, (distance, read, write) in enumerate(heads):
        for pair in range(half):
            gain = 1.5 if pair < _FAST_PAIRS else 0.3
            low, high = head * d + pair, head * d + half + pair
            for matrix, row, value in (
                (q, low, gain * math.cos(angle[pair] * distance)),
                (q, high, -gain * math.sin(angle[pair] * distance)),
                (k, low, gain),
                (k, high, 0.0),
            ):
                matrix[row] *= 0.1
                matrix[row, 0] = value
        v[head * d : (head + 1) * d] = read.t()
        o[:, head * d : (head + 1) * d] = write * _PREVIOUS_GAIN


def _write_match(
    weights: dict[str, Tensor],
    shape: LeanShape,
    layer: int,
    here: Tensor,
    before: Tensor,
    copied: Tensor,
    gain: float,
) -> None:
    q, k, v, o = (weights[f"model.layers.{layer}.self_attn.{name}_proj.weight"] for name in "qkvo")
    d = shape.head_width
    slow = list(range(_FAST_PAIRS, 16))
    rows = slow + [16 + pair for pair in slow]  # 20 of the 32
    r, p = here.t(), before.t()
    reads = (
        (r[0:20], p[0:20]),
        (r[32:52], p[32:52]),
        (torch.cat([r[20:30], p[0:10]]), torch.cat([p[20:30], p[64:74]])),  # also the token two before
    )
    for head, (asked, offered) in enumerate(reads):
        span = slice(head * d, (head + 1) * d)
        q[span] *= 0.3
        k[span] *= 0.3
        for n, row in enumerate(rows):
            q[head * d + row] = _MATCH_GAIN * asked[n]
            k[head * d + row] = _MATCH_GAIN * offered[n]
        v[span] = copied[:, 32 * head : 32 * head + 32].t()
        o[:, span] = copied[:, 32 * head : 32 * head + 32] * gain
