"""Attention of packed documents for training on one core: our kernel, our plain torch, and torch's own ways.

Documents have the lengths of the training benchmark. Prints one row a contender (CPU milliseconds forward and backward,
billions of useful operations a second: pairs of positions that may see each other) and, last, JSON.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from espalier.nn.attention import segment_attention
from espalier.nn.kernels.compiling import SWITCH, kernels_in_use

SHAPES = {"135M": (9, 3, 64), "15M": (6, 2, 48)}
QUANTILES = {0.0: 20, 0.5: 85, 0.9: 234, 0.99: 570, 1.0: 954}
DOCUMENTS = 40
RUNS = 5


@dataclass(frozen=True, slots=True)
class Work:
    q: Tensor
    k: Tensor
    v: Tensor
    given: Tensor
    segments: np.ndarray
    scale: float

    @property
    def operations(self) -> float:
        """Products and sums of the forward pass and of the backward, which makes the scores again: 2 and 5 products."""
        sizes = (self.segments[:, 1] - self.segments[:, 0]).astype(float)
        return 7 * 2 * self.q.shape[1] * self.q.shape[2] * float((sizes * (sizes + 1) / 2).sum())


def draw_lengths(count: int) -> np.ndarray:
    """Lengths at evenly spaced shares between the given quantiles, in an order of their own."""
    shares = (np.arange(count) + 0.5) / count
    logs = np.interp(shares, list(QUANTILES), np.log(list(QUANTILES.values())))
    return np.random.default_rng(0).permutation(np.exp(logs).astype(int))


def make_work(heads: int, kv: int, width: int, dtype: torch.dtype) -> Work:
    sizes = draw_lengths(DOCUMENTS)
    ends = np.cumsum(sizes)
    segments = np.stack([ends - sizes, ends, 0 * ends, 0 * ends], 1).astype(np.int32)
    torch.manual_seed(0)
    t = int(ends[-1])
    q, k, v = (torch.randn(t, n, width).to(dtype).requires_grad_() for n in (heads, kv, kv))
    return Work(q, k, v, torch.randn(t, heads, width).to(dtype), segments, width**-0.5)


def ours(work: Work) -> Tensor:
    return segment_attention(work.q, work.k, work.v, work.segments, work.scale)


def plain(work: Work) -> Tensor:
    os.environ[SWITCH] = "off"
    return ours(work)


def flash(work: Work) -> Tensor:
    """torch's flash kernel for CPU, one document at a time, key heads repeated as it asks."""
    group = work.q.shape[1] // work.k.shape[1]
    outs = []
    for start, end, *_ in work.segments.tolist():
        q, k, v = (x[start:end].transpose(0, 1)[None] for x in (work.q, work.k, work.v))
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        outs.append(
            functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=work.scale)[0].transpose(0, 1)
        )
    return torch.cat(outs)


def batched(work: Work) -> Tensor:
    """Two batched products and a softmax for each document, as modelling code writes them."""
    group = work.q.shape[1] // work.k.shape[1]
    outs = []
    for start, end, *_ in work.segments.tolist():
        q, k, v = (x[start:end].transpose(0, 1) for x in (work.q, work.k, work.v))
        k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
        future = torch.full((end - start, end - start), float("-inf"), dtype=q.dtype).triu_(1)
        scores = torch.baddbmm(future, q, k.transpose(1, 2), alpha=work.scale)
        outs.append(torch.bmm(scores.softmax(-1), v).transpose(0, 1))
    return torch.cat(outs)


CONTENDERS: dict[str, Callable[[Work], Tensor]] = {"compiled": ours, "plain": plain, "flash": flash, "bmm": batched}


def measure_ms(contender: Callable[[Work], Tensor], work: Work) -> float:
    """CPU time of a forward and a backward pass, the least of several."""
    taken = []
    for _ in range(RUNS):
        begun = time.thread_time()
        torch.autograd.grad(contender(work), (work.q, work.k, work.v), work.given)
        taken.append(time.thread_time() - begun)
        os.environ.pop(SWITCH, None)
    return 1e3 * min(taken)


def main() -> None:
    torch.set_num_threads(1)
    print("kernels:", *kernels_in_use())
    found: dict[str, dict[str, float]] = {}
    for name, shape in SHAPES.items():
        for dtype in (torch.bfloat16, torch.float32):
            work = make_work(*shape, dtype)
            key = f"{name} {str(dtype).removeprefix('torch.')}"
            found[key] = {}
            for contender, compute in CONTENDERS.items():
                taken = measure_ms(compute, work)
                found[key][contender] = round(taken, 2)
                print(f"{key:<16} {contender:<9} {taken:8.1f} ms {work.operations / taken / 1e6:6.0f} GF/s")
    print(json.dumps({"tokens": int(draw_lengths(DOCUMENTS).sum()), "kernels": kernels_in_use(), "ms": found}))


if __name__ == "__main__":
    main()
