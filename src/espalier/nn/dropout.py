"""Dropout that is a function of (a pack's seed, a layer's name), whichever thread or process computes the pack.

torch's own draws from one stream for the whole process: what a pack loses would depend on which pack came before it.
Knows no model. Outside `dropping`, and where no gradient is wanted, nothing is dropped.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_current = threading.local()
_STEPS = 1 << 16  # a number is kept or dropped by 16 random bits


@dataclass(frozen=True, slots=True)
class Keep:
    """Which numbers of a tensor stay (`mask`, bool, its shape), and what those are multiplied by."""

    mask: Tensor
    gain: float

    def of(self, x: Tensor) -> Tensor:
        """x with the others zero; its own derivative too."""
        return (x * self.mask).mul_(self.gain)


@contextmanager
def dropping(seed: int) -> Iterator[None]:
    """Inside, in this thread, layers drop what `seed` says (tokens/pack.py: a pack carries one)."""
    before = getattr(_current, "seed", None)
    _current.seed = seed
    try:
        yield
    finally:
        _current.seed = before


def draw_keep(x: Tensor, share: float, name: str) -> Keep | None:
    """What to keep of the input `x` of layer `name` when `share` of it is dropped; None for everything.

    The share is taken to the nearest 1/65536, and the gain from that, so that the mean is exactly kept.
    """
    seed = getattr(_current, "seed", None)
    if seed is None or share <= 0 or not torch.is_grad_enabled():
        return None
    dropped = round(share * _STEPS)
    if dropped == 0:
        return None
    noise = int.from_bytes(hashlib.sha256(f"dropout/{seed}/{name}".encode()).digest()[:8], "big") >> 1
    return Keep(_draw(x, dropped, noise), _STEPS / (_STEPS - dropped))


def _draw(x: Tensor, dropped: int, seed: int) -> Tensor:
    if x.device.type == "cpu":
        # NumPy promises the stream of a bit generator, and this one is an order faster than torch's.
        words = np.random.SFC64(seed).random_raw((x.numel() + 3) // 4).astype("<u8", copy=False)
        return torch.from_numpy(words.view("<u2")[: x.numel()] >= dropped).view(x.shape)
    generator = torch.Generator(x.device).manual_seed(seed)
    drawn = torch.randint(0, _STEPS, x.shape, generator=generator, device=x.device, dtype=torch.int32)
    return drawn >= dropped
