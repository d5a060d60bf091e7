"""Learning-rate schedules: step -> the share of the peak rate. Pure."""

from __future__ import annotations

import math
from typing import Literal

ScheduleName = Literal["cosine", "linear", "constant", "wsd"]


def lr_scale(
    name: ScheduleName, step: int, *, steps: int, warmup_steps: int, decay_steps: int = 0, floor: float = 0.0
) -> float:
    """The factor for 0-based `step` of `steps`: a linear warm-up, then the named shape down to `floor`.

    wsd (warm-up, stable, decay; MiniCPM, arXiv:2404.06395) stays at 1 until the last `decay_steps` and falls linearly
    there, so runs that differ only in `steps` are the same until the first of them decays: one trunk, several
    finished models.
    """
    warm = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    if step < warmup_steps or name == "constant":
        return warm
    if name == "wsd":
        return max(floor, min(1.0, (steps - step) / (decay_steps + 1)))
    share = (step - warmup_steps) / max(1, steps - warmup_steps)
    shape = 1 - share if name == "linear" else 0.5 * (1 + math.cos(math.pi * share))
    return floor + (1 - floor) * shape
