"""The one training loop: every method is a `Trainable` handed to `fit`.

Knows steps, gradients, schedules, checkpoints and events; knows no model, no objective and no dataset. A run killed
at any moment and started again continues from its last checkpoint and ends in the same bytes, because step i depends
on nothing but the state before it.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from espalier.core.errors import Conflict, Interrupted, InvalidInput
from espalier.core.events import Emit, Event
from espalier.nn.optimizers import Optimizer
from espalier.tokens.pack import Rectangle
from espalier.train import checkpoint
from espalier.train.parallel import gradients, losses, one_thread_each
from espalier.train.plan import Corpus, Cursor, Plan
from espalier.train.trainable import Trainable


@dataclass(frozen=True, slots=True)
class Course:
    """What a run is to do: how long, how fast, how careful."""

    steps: int
    lr_scale: Callable[[int], float]  # 0-based step -> share of the peak rate
    clip_norm: float = 1.0
    workers: int = 0  # cores to use, 0 = all; does not change the result
    identity: str = ""  # digest of all that decides the result; a checkpoint of another identity is refused
    checkpoint_every_s: float = 60.0
    checkpoint_every_steps: int = 0  # 0 = by time alone
    evaluate_every_steps: int = 0  # 0 = at the end alone


@dataclass(slots=True)
class Progress:
    """Where a run stands; saved in every checkpoint."""

    step: int = 0
    cursor: Cursor = field(default_factory=Cursor)
    tokens: int = 0
    supervised_tokens: int = 0
    loss_first: float | None = None  # None = no step yet
    loss_last: float | None = None
    validation_loss: float | None = None  # None = nothing to validate on
    wall_s: float = 0.0
    cpu_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in self.__slots__ if name != "cursor"}
        return {**values, "cursor": self.cursor.to_json()}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Progress:
        values = {name: state[name] for name in cls.__slots__ if name != "cursor"}
        return cls(**values, cursor=Cursor(**state["cursor"]))


def fit(
    trainable: Trainable,
    optimizers: Sequence[Optimizer],
    plan: Plan,
    corpus: Corpus,
    course: Course,
    *,
    validation: Sequence[Rectangle] = (),
    checkpoint_dir: Path,
    emit: Emit,
) -> Progress:
    """Train until `course.steps` are done, from the newest checkpoint in `checkpoint_dir` when there is one.

    Raises InvalidInput when the corpus is empty or the loss stops being a number, Conflict when the checkpoint is of
    another run.
    """
    run = _Run(trainable, optimizers, course, validation, checkpoint_dir, emit)
    run.resume()
    with one_thread_each(course.workers or os.cpu_count() or 1) as pool:
        try:
            run.advance(pool, plan, corpus)
        except Interrupted:
            run.save()  # whoever watches raised it from `emit`, between two steps: nothing is lost
            raise
    emit(Event("train.done", run.progress.to_json()))
    return run.progress


def evaluate(pool: ThreadPoolExecutor, trainable: Trainable, batches: Sequence[Rectangle]) -> float:
    """Weighted mean negative log-likelihood per supervised token, one batch to a core."""
    total = sum(float(batch.weights.sum()) for batch in batches)
    return sum(losses(pool, trainable, batches)) / total


class _Run:
    """One training run under way: what it trains, where it stands, whom it tells."""

    def __init__(
        self,
        trainable: Trainable,
        optimizers: Sequence[Optimizer],
        course: Course,
        validation: Sequence[Rectangle],
        folder: Path,
        emit: Emit,
    ) -> None:
        self.trainable, self.optimizers, self.course = trainable, optimizers, course
        self.validation, self.folder, self.emit = validation, folder, emit
        self.progress = Progress()
        self.clock = _Clock(self.progress)

    def resume(self) -> None:
        """Take up the newest checkpoint, if there is one. Raises Conflict when it is of another run."""
        found = checkpoint.newest(self.folder)
        if found is None:
            return
        if found.state["identity"] != self.course.identity:
            raise Conflict(
                f"the checkpoint in {self.folder} belongs to another run (other data, base or recipe)",
                hint="use another folder, or delete it to start afresh",
            )
        with torch.no_grad():
            for name, parameter in self.trainable.parameters.items():
                parameter.copy_(found.tensors[f"parameter/{name}"])
        for index, optimizer in enumerate(self.optimizers):
            prefix = f"optimizer{index}/"
            optimizer.load_state({k[len(prefix) :]: v for k, v in found.tensors.items() if k.startswith(prefix)})
        torch.set_rng_state(found.tensors["rng"])
        self.progress = Progress.from_json(found.state)
        self.clock = _Clock(self.progress)
        self.emit(Event("train.resumed", {"step": found.step}))

    def advance(self, pool: ThreadPoolExecutor, plan: Plan, corpus: Corpus) -> None:
        """Do the steps that are left, then evaluate and save."""
        course, progress = self.course, self.progress
        saved_s = time.monotonic()
        left = max(0, course.steps - progress.step)
        for cursor, batch in islice(plan.steps(corpus, progress.cursor), left):
            scale = course.lr_scale(progress.step)
            loss, norm = self._step(pool, batch, scale)
            progress.cursor = cursor
            progress.step += 1
            self._count(batch, loss)
            self.emit(Event("train.step", self._figures(scale, norm)))
            if course.evaluate_every_steps and progress.step % course.evaluate_every_steps == 0:
                self._evaluate(pool)
            due = bool(course.checkpoint_every_steps) and progress.step % course.checkpoint_every_steps == 0
            if due or time.monotonic() - saved_s > course.checkpoint_every_s:
                self.save()
                saved_s = time.monotonic()
        if progress.step < course.steps:
            raise InvalidInput("the dataset holds nothing to train on", hint="look at the mask audit of the run")
        if left:
            self._evaluate(pool)
            self.save()

    def save(self) -> None:
        """Write a checkpoint of everything the next step depends on."""
        tensors = {f"parameter/{name}": value for name, value in self.trainable.parameters.items()}
        for index, optimizer in enumerate(self.optimizers):
            tensors |= {f"optimizer{index}/{name}": value for name, value in optimizer.state().items()}
        tensors["rng"] = torch.get_rng_state()
        self.clock.read(self.progress)
        state = {**self.progress.to_json(), "identity": self.course.identity}
        checkpoint.write(self.folder, self.progress.step, tensors, state)
        self.emit(Event("train.checkpoint", {"step": self.progress.step}))

    def _step(self, pool: ThreadPoolExecutor, batch: Sequence[Rectangle], scale: float) -> tuple[float, float]:
        """One update; returns the mean loss before it and the gradient's norm before clipping."""
        parameters = list(self.trainable.parameters.values())
        total = float(sum(float(part.weights.sum()) for part in batch))
        loss = 0.0
        for index, (share, grads) in enumerate(gradients(pool, self.trainable, batch, total)):
            loss += share
            for parameter, grad in zip(parameters, grads, strict=True):
                if index == 0 or parameter.grad is None:
                    parameter.grad = grad
                elif grad is not None:
                    parameter.grad += grad
        live = [parameter for parameter in parameters if parameter.grad is not None]
        norm = float(torch.nn.utils.clip_grad_norm_(live, self.course.clip_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            names = ", ".join(name for part in batch for name in part.documents[:4])
            raise InvalidInput(
                f"training diverged at step {self.progress.step + 1}: "
                f"the loss is {loss}, the gradient's norm {norm} (examples {names} ...)",
                hint="lower the learning rate, or look at these examples",
            )
        for optimizer in self.optimizers:
            optimizer.step(scale)
        return loss, norm

    def _count(self, batch: Sequence[Rectangle], loss: float) -> None:
        progress = self.progress
        progress.tokens += sum(part.tokens for part in batch)
        progress.supervised_tokens += sum(len(part.rows) for part in batch)
        progress.loss_last = loss
        if progress.loss_first is None:
            progress.loss_first = loss
        self.clock.read(progress)

    def _evaluate(self, pool: ThreadPoolExecutor) -> None:
        if self.validation:
            self.progress.validation_loss = evaluate(pool, self.trainable, self.validation)
            figures = {"step": self.progress.step, "validation_loss": self.progress.validation_loss}
            self.emit(Event("train.eval", figures))

    def _figures(self, scale: float, norm: float) -> dict[str, Any]:
        progress, per_s = self.progress, self.clock.tokens_per_s(self.progress)
        left = self.course.steps - progress.step
        return {
            "step": progress.step,
            "steps": self.course.steps,
            "loss": progress.loss_last,
            "lr_scale": scale,
            "grad_norm": norm,
            "tokens": progress.tokens,
            "tokens_per_s": per_s,
            "eta_s": left * progress.tokens / progress.step / per_s if per_s else 0.0,
        }


class _Clock:
    """Wall and CPU seconds of this process on top of what earlier ones spent."""

    def __init__(self, progress: Progress) -> None:
        self._wall_s, self._cpu_s, self._tokens = progress.wall_s, progress.cpu_s, progress.tokens
        self._wall_start_s, self._cpu_start_s = time.monotonic(), time.process_time()

    def read(self, progress: Progress) -> None:
        progress.wall_s = self._wall_s + time.monotonic() - self._wall_start_s
        progress.cpu_s = self._cpu_s + time.process_time() - self._cpu_start_s

    def tokens_per_s(self, progress: Progress) -> float:
        spent_s = progress.wall_s - self._wall_s
        return (progress.tokens - self._tokens) / spent_s if spent_s > 0 else 0.0
