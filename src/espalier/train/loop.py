"""The one training loop: every method is a `Learner` handed to `fit`.

Knows steps, gradients, schedules, looks at validation, checkpoints and events; knows no model, no objective and no
dataset. A run killed at any moment and started again continues from its last checkpoint and ends in the same bytes,
because step i depends on nothing but the state before it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from espalier.core.errors import Interrupted, InvalidInput
from espalier.core.events import Emit, Event
from espalier.nn.optimizers import Optimizer
from espalier.tokens.pack import Pack
from espalier.train import checkpoint
from espalier.train.learner import Learner
from espalier.train.parallel import World
from espalier.train.plan import Corpus, Plan
from espalier.train.progress import Clock, Progress, peak_memory_bytes

# A run whose smoothed loss is twice that of its first step, and at least this much above it, will not come back.
_DIVERGED_NATS = 1.0


@dataclass(frozen=True, slots=True)
class Stopping:
    """End after `patience` looks in a row that gained no more than `min_gain` on the best."""

    patience: int
    min_gain: float = 0.0


@dataclass(frozen=True, slots=True)
class Course:
    """What a run is to do: how long, how fast, how careful."""

    steps: int
    lr_scale: Callable[[int], float]  # 0-based step -> share of the peak rate
    clip_norm: float = 1.0
    identity: Mapping[str, Any] = field(default_factory=dict)  # all that decides the result, by what a person calls it
    checkpoint_every_s: float = 60.0
    checkpoint_every_steps: int = 0  # 0 = by time alone
    evaluate_every_steps: int = 0  # 0 = at the end alone
    keep_best: bool = False  # end with the weights of the best look
    stopping: Stopping | None = None
    usd_per_hour: float = 0.0  # what the machine costs


def fit(
    learner: Learner,
    optimizers: Sequence[Optimizer],
    plan: Plan,
    corpus: Corpus,
    course: Course,
    *,
    world: World,
    validation: Sequence[Pack] = (),
    checkpoint_dir: Path,
    emit: Emit,
) -> Progress:
    """Train until `course.steps` are done, from the newest checkpoint in `checkpoint_dir` when there is one.

    Raises InvalidInput when the corpus is empty or the loss stops being a number or runs away, Conflict when the
    checkpoint is of another run.
    """
    run = _Run(learner, optimizers, course, world, validation, checkpoint_dir, emit)
    run.resume()
    try:
        run.advance(plan, corpus)
    except Interrupted:
        run.save()  # whoever watches raised it from `emit`, between two steps: nothing is lost
        raise
    run.take_best()
    run.tell(Event("train.done", run.progress.to_json()))
    return run.progress


def evaluate(learner: Learner, world: World, packs: Sequence[Pack]) -> tuple[float, dict[str, float]]:
    """The mean loss over the packs, and the means of its figures."""
    step = learner.total(world, packs)
    shares = list(world.each(len(packs), lambda index: learner.look(packs[index], step)))
    return sum(share.numbers[0] for share in shares), _means([share.figures for share in shares], step.weight)


class _Run:
    """One training run under way: what it trains, where it stands, whom it tells."""

    def __init__(
        self,
        learner: Learner,
        optimizers: Sequence[Optimizer],
        course: Course,
        world: World,
        validation: Sequence[Pack],
        folder: Path,
        emit: Emit,
    ) -> None:
        self.learner, self.optimizers, self.course, self.world = learner, optimizers, course, world
        self.validation, self.folder, self.emit = validation, folder, emit
        self.parameters = dict(learner.parameters)
        self.best: dict[str, Tensor] = {}
        self.progress = Progress()
        self.clock = Clock(self.progress)

    def tell(self, event: Event) -> None:
        """Emit on one process of the world."""
        if self.world.rank == 0:
            self.emit(event)

    def resume(self) -> None:
        """Take up the newest checkpoint, if there is one. Raises Conflict when it is of another run."""
        found = checkpoint.newest(self.folder)
        if found is None:
            return
        checkpoint.check_identity(found, self.course.identity, self.folder)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(found.tensors[f"parameter/{name}"])
        for index, optimizer in enumerate(self.optimizers):
            optimizer.load_state(_below(f"optimizer{index}/", found.tensors))
        self.best = _below("best/", found.tensors)
        self.progress = Progress.from_json(found.state)
        self.clock = Clock(self.progress)
        self.tell(Event("train.resumed", {"step": found.step}))

    def advance(self, plan: Plan, corpus: Corpus) -> None:
        """Do the steps that are left, and save."""
        course, progress = self.course, self.progress
        saved_s = time.monotonic()
        left = 0 if progress.stopped_early else max(0, course.steps - progress.step)
        for cursor, packs in islice(plan.steps(corpus, progress.cursor), left):
            scale = course.lr_scale(progress.step)
            loss, norm, figures = self._step(packs, scale)
            progress.cursor = cursor
            supervised = sum(len(pack.rows) for pack in packs)
            progress.count(loss, tokens=sum(pack.tokens for pack in packs), supervised_tokens=supervised)
            self.clock.read(progress)
            self._check_course(packs)
            # Whoever watches may interrupt from `tell`: by then all that belongs to the step has been done.
            looked = self._look() if self._is_look_due() else None
            self.tell(Event("train.step", self._figures(scale, norm) | figures))
            if looked is not None:
                self.tell(Event("train.eval", {"step": progress.step} | looked))
            due = bool(course.checkpoint_every_steps) and progress.step % course.checkpoint_every_steps == 0
            if due or time.monotonic() - saved_s > course.checkpoint_every_s:
                self.save()
                saved_s = time.monotonic()
            if progress.stopped_early:
                break
        if progress.step < course.steps and not progress.stopped_early:
            raise InvalidInput("the dataset holds nothing to train on", hint="look at the mask audit of the run")
        if left:
            self.save()

    def save(self) -> None:
        """Write a checkpoint of everything the next step depends on."""
        if self.world.rank != 0:
            return
        tensors = {f"parameter/{name}": value for name, value in self.parameters.items()}
        tensors |= {f"best/{name}": value for name, value in self.best.items()}
        for index, optimizer in enumerate(self.optimizers):
            tensors |= {f"optimizer{index}/{name}": value for name, value in optimizer.state().items()}
        self.clock.read(self.progress)
        state = {**self.progress.to_json(), "identity": dict(self.course.identity)}
        checkpoint.write(self.folder, self.progress.step, tensors, state)
        self.tell(Event("train.checkpoint", {"step": self.progress.step}))

    def take_best(self) -> None:
        """Put the weights of the best look in place, where the course asks for it, and say what they were worth."""
        progress = self.progress
        if self.best:
            progress.validation_loss, progress.validation_figures = progress.best_loss, progress.best_figures
        with torch.no_grad():
            for name, value in self.best.items():
                self.parameters[name].copy_(value)

    def _step(self, packs: Sequence[Pack], scale: float) -> tuple[float, float, dict[str, float]]:
        """One update; the mean loss before it, the gradient's norm before clipping, and the objective's figures."""
        parameters = list(self.parameters.values())
        totals = self.learner.total(self.world, packs)
        loss, figures = 0.0, []
        for parameter in parameters:
            parameter.grad = None
        for share in self.world.each(len(packs), lambda i: self.learner.gradient(packs[i], totals, parameters)):
            loss += share.numbers[0]
            figures.append(share.figures)
            for parameter, gradient in zip(parameters, share.gradients, strict=True):
                if parameter.grad is None:
                    parameter.grad = gradient
                elif gradient is not None:
                    parameter.grad += gradient
        live = [parameter for parameter in parameters if parameter.grad is not None]
        norm = float(torch.nn.utils.clip_grad_norm_(live, self.course.clip_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise _diverged(self.progress.step + 1, f"the loss is {loss}, the gradient's norm {norm}", packs)
        for optimizer in self.optimizers:
            optimizer.step(scale)
        return loss, norm, _means(figures, totals.weight)

    def _check_course(self, packs: Sequence[Pack]) -> None:
        first, smooth = self.progress.loss_first, self.progress.loss_smooth
        if first is not None and smooth is not None and smooth > max(2 * first, first + _DIVERGED_NATS):
            said = f"the loss was {first:.3g} at first and is {smooth:.3g} over the last steps"
            raise _diverged(self.progress.step, said, packs)

    def _is_look_due(self) -> bool:
        step, every = self.progress.step, self.course.evaluate_every_steps
        return bool(self.validation) and (step == self.course.steps or (bool(every) and step % every == 0))

    def _look(self) -> dict[str, float]:
        """Evaluate on the validation packs; keep the best weights, and say when it is time to stop."""
        progress, course = self.progress, self.course
        loss, figures = evaluate(self.learner, self.world, self.validation)
        progress.validation_loss, progress.validation_figures = loss, figures
        gain = math.inf if progress.best_loss is None else progress.best_loss - loss
        if gain > (course.stopping.min_gain if course.stopping else 0.0):
            progress.best_loss, progress.best_step, progress.looks_without_gain = loss, progress.step, 0
            progress.best_figures = figures
            if course.keep_best:
                self.best = {name: value.detach().clone() for name, value in self.parameters.items()}
        else:
            progress.looks_without_gain += 1
        progress.stopped_early = course.stopping is not None and progress.looks_without_gain >= course.stopping.patience
        return {"validation_loss": loss, **figures}

    def _figures(self, scale: float, norm: float) -> dict[str, Any]:
        progress = self.progress
        tokens_per_s, supervised_per_s = self.clock.rates(progress)
        left = self.course.steps - progress.step
        return {
            "step": progress.step,
            "steps": self.course.steps,
            "loss": progress.loss_last,
            "lr_scale": scale,
            "grad_norm": norm,
            "tokens": progress.tokens,
            "tokens_per_s": tokens_per_s,
            "supervised_tokens_per_s": supervised_per_s,
            "memory_bytes": peak_memory_bytes(),
            "eta_s": left * progress.tokens / progress.step / tokens_per_s if tokens_per_s else 0.0,
            "cost_usd": progress.wall_s / 3600 * self.course.usd_per_hour,
        }


def _diverged(step: int, said: str, packs: Sequence[Pack]) -> InvalidInput:
    names = [name for pack in packs for name in pack.documents]
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return InvalidInput(
        f"training diverged at step {step}: {said} (examples {shown})",
        hint="lower the learning rate, or look at these examples",
    )


def _means(figures: Sequence[Mapping[str, float]], weight: float) -> dict[str, float]:
    """Sums of each pack -> means over the step."""
    return {name: sum(one[name] for one in figures) / weight for name in (figures[0] if figures else {})}


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
