"""The learning-rate range test: a short training whose rate grows step by step, and what its losses say.

Smith 2015, arXiv:1506.01186, with the exponential growth and the smoothed curve that are usual since
(https://docs.fast.ai/callback.schedule.html). `read_curve` is pure; `try_rates` trains. Nothing is written: the
weights that were tried are let go.

Legend: n steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from espalier.core.errors import InvalidInput
from espalier.core.events import Emit, Event

if TYPE_CHECKING:
    from espalier.tokens.pack import Pack
    from espalier.train.learner import Learner
    from espalier.train.parallel import World

SMOOTHING = 0.9  # of the running mean of losses
DIVERGED = 2.0  # times the lowest smoothed loss: the curve ends there
_LEAST_STEPS = 10
_CHART_ROWS, _BAR_CHARS = 16, 40


@dataclass(frozen=True, slots=True)
class LrRange:
    """What a range test found. `suggested` is where the loss falls fastest; above `diverged` it only rises."""

    rates: tuple[float, ...]  # (n,)
    losses: tuple[float, ...]  # (n,) before each step
    smoothed: tuple[float, ...]  # (n,)
    suggested: float
    lowest: float  # the rate at which the smoothed loss is least
    diverged: float | None  # None: it never did


def grow_rates(lowest: float, highest: float, steps: int) -> list[float]:
    """Rates from `lowest` to `highest`, each the same factor above the one before. Raises InvalidInput."""
    if not 0 < lowest < highest or steps < _LEAST_STEPS:
        raise InvalidInput(
            f"a range test from {lowest:g} to {highest:g} in {steps} steps is none",
            hint=f"the lowest rate is above 0 and below the highest, and there are {_LEAST_STEPS} steps or more",
        )
    return [lowest * (highest / lowest) ** (step / (steps - 1)) for step in range(steps)]


def try_rates(
    learner: Learner,
    world: World,
    steps: Iterator[Sequence[Pack]],
    rates: Sequence[float],
    *,
    weight_decay: float = 0.0,
    clip_norm: float = 1.0,
    emit: Emit,
) -> LrRange:
    """Train one step at each rate, until the loss runs away. The learner's weights are used up."""
    from espalier.nn.optimizers import AdamW

    optimizer = AdamW(learner.parameters, lr=rates[-1], betas=(0.9, 0.98), weight_decay=weight_decay)
    losses: list[float] = []
    for number, (packs, rate) in enumerate(zip(islice(steps, len(rates)), rates, strict=False)):
        losses.append(_step(learner, world, packs, clip_norm))
        emit(Event("train.step", {"step": number + 1, "steps": len(rates), "loss": losses[-1], "lr": rate}))
        if _ran_away(losses):
            break
        optimizer.step(rate / rates[-1])
    return read_curve(rates[: len(losses)], losses)


def read_curve(rates: Sequence[float], losses: Sequence[float]) -> LrRange:
    """What the losses (n,) at growing rates (n,) say. Raises InvalidInput when they are too few or never fall."""
    finite = [loss for loss in losses if math.isfinite(loss)]
    if len(finite) < _LEAST_STEPS:
        raise InvalidInput(
            f"the loss ran away after {len(finite)} steps, at a rate of {rates[len(finite) - 1]:g}",
            hint="begin with a lower rate",
        )
    smoothed = smooth(finite)
    best = int(np.argmin(smoothed))
    if best == 0:
        raise InvalidInput(
            "the loss fell at none of the rates tried", hint="begin with a lower rate, or look at the mask audit"
        )
    slope = np.gradient(smoothed[: best + 1], np.log(np.asarray(rates[: best + 1])))
    over = [rate for rate, loss in zip(rates, smoothed, strict=False) if loss > DIVERGED * smoothed[best]]
    beyond = [rate for rate in over if rate > rates[best]]
    ended = beyond[0] if beyond else rates[len(finite) - 1] if _ran_away(losses) else None
    return LrRange(
        rates=tuple(rates[: len(finite)]),
        losses=tuple(finite),
        smoothed=tuple(float(loss) for loss in smoothed),
        suggested=float(rates[int(np.argmin(slope))]),
        lowest=float(rates[best]),
        diverged=ended,
    )


def smooth(losses: Sequence[float]) -> list[float]:
    """A running mean with its start corrected, as Adam corrects its moments. (n,) -> (n,)"""
    mean, smoothed = 0.0, []
    for number, loss in enumerate(losses, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smoothed.append(mean / (1 - SMOOTHING**number))
    return smoothed


def draw_chart(found: LrRange) -> str:
    """The smoothed losses as bars, a row for every few rates."""
    stride = max(1, math.ceil(len(found.rates) / _CHART_ROWS))
    low, high = min(found.smoothed), max(found.smoothed)
    lines = []
    for start in range(0, len(found.rates), stride):
        rates = found.rates[start : start + stride]
        loss = float(np.mean(found.smoothed[start : start + stride]))
        bar = "█" * max(1, round(_BAR_CHARS * (loss - low) / (high - low or 1)))
        mark = " <- suggested" if found.suggested in rates else " <- lowest" if found.lowest in rates else ""
        lines.append(f"{rates[0]:9.1e}  {loss:8.4f}  {bar}{mark}")
    return "\n".join(lines)


def _step(learner: Learner, world: World, packs: Sequence[Pack], clip_norm: float) -> float:
    """The loss of a step, its gradient left on the parameters."""
    import torch

    parameters = list(learner.parameters.values())
    totals = learner.total(world, packs)
    for parameter in parameters:
        parameter.grad = None
    loss = 0.0
    for share in world.each(len(packs), lambda index: learner.gradient(packs[index], totals, parameters)):
        loss += share.numbers[0]
        for parameter, gradient in zip(parameters, share.gradients, strict=True):
            if parameter.grad is None:
                parameter.grad = gradient
            elif gradient is not None:
                parameter.grad += gradient
    torch.nn.utils.clip_grad_norm_([one for one in parameters if one.grad is not None], clip_norm)
    return loss


def _ran_away(losses: Sequence[float]) -> bool:
    if not math.isfinite(losses[-1]):
        return True
    smoothed = smooth(losses)
    return len(losses) > _LEAST_STEPS and smoothed[-1] > DIVERGED * max(min(smoothed), 1e-9)
