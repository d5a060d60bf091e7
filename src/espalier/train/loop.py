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
from typing import Any, Protocol

import torch
from torch import Tensor

from espalier.core.errors import Conflict, InvalidInput
from espalier.core.events import Emit, Event
from espalier.nn.optimizers import Optimizer
from espalier.tokens.pack import Rectangle
from espalier.train import checkpoint
from espalier.train.parallel import gradients, one_thread_each
from espalier.train.plan import Corpus, Cursor, Plan


class Trainable(Protocol):
    """What is trained: named tensors with gradients, and a loss that reads them."""

    @property
    def parameters(self) -> Mapping[str, Tensor]: ...

    def loss(self, batch: Rectangle, weights: Tensor) -> Tensor:
        """sum of weights * negative log-likelihood over the batch's rows, a scalar; `weights` (r,) are given apart to be normalised."""
        ...


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
    loss_first: float = math.nan
    loss_last: float = math.nan
    validation_loss: float = math.nan
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
    progress = _resume(trainable, optimizers, course, checkpoint_dir, emit)
    with one_thread_each(course.workers or os.cpu_count() or 1) as pool:
        _run(pool, trainable, optimizers, plan, corpus, course, progress, validation, checkpoint_dir, emit)
    emit(Event("train.done", progress.to_json()))
    return progress


def _run(
    pool: ThreadPoolExecutor,
    trainable: Trainable,
    optimizers: Sequence[Optimizer],
    plan: Plan,
    corpus: Corpus,
    course: Course,
    progress: Progress,
    validation: Sequence[Rectangle],
    checkpoint_dir: Path,
    emit: Emit,
) -> None:
    clock = _Clock(progress)
    saved_s = time.monotonic()
    for cursor, batch in islice(plan.steps(corpus, progress.cursor), max(0, course.steps - progress.step)):
        scale = course.lr_scale(progress.step)
        loss, norm = _step(pool, trainable, optimizers, batch, scale, course, progress.step)
        progress.cursor = cursor
        progress.step += 1
        _count(progress, batch, loss)
        clock.read(progress)
        emit(Event("train.step", _figures(progress, course, clock, scale, norm)))
        if course.evaluate_every_steps and progress.step % course.evaluate_every_steps == 0:
            _evaluate(trainable, validation, progress, emit)
        due = bool(course.checkpoint_every_steps) and progress.step % course.checkpoint_every_steps == 0
        if due or time.monotonic() - saved_s > course.checkpoint_every_s:
            _save(trainable, optimizers, course, progress, checkpoint_dir, emit)
            saved_s = time.monotonic()
    if progress.step < course.steps:
        raise InvalidInput("the dataset holds nothing to train on", hint="look at the mask audit of the run")
    _evaluate(trainable, validation, progress, emit)
    clock.read(progress)
    _save(trainable, optimizers, course, progress, checkpoint_dir, emit)


def evaluate(trainable: Trainable, batches: Sequence[Rectangle]) -> float:
    """Weighted mean negative log-likelihood per supervised token; nan without batches."""
    total = float(sum(float(batch.weights.sum()) for batch in batches))
    with torch.no_grad():
        loss = sum(float(trainable.loss(batch, torch.from_numpy(batch.weights))) for batch in batches)
    return loss / total if total else math.nan


def _step(
    pool: ThreadPoolExecutor,
    trainable: Trainable,
    optimizers: Sequence[Optimizer],
    batch: Sequence[Rectangle],
    scale: float,
    course: Course,
    step: int,
) -> tuple[float, float]:
    """One update; returns the mean loss before it and the gradient's norm before clipping."""
    parameters = list(trainable.parameters.values())
    total = float(sum(float(part.weights.sum()) for part in batch))
    loss = 0.0
    for index, (share, grads) in enumerate(gradients(pool, trainable, batch, total)):
        loss += share
        for parameter, grad in zip(parameters, grads, strict=True):
            if index == 0 or parameter.grad is None:
                parameter.grad = grad
            elif grad is not None:
                parameter.grad += grad
    norm = float(torch.nn.utils.clip_grad_norm_([p for p in parameters if p.grad is not None], course.clip_norm))
    if not (math.isfinite(loss) and math.isfinite(norm)):
        names = ", ".join(name for part in batch for name in part.documents[:4])
        raise InvalidInput(
            f"training diverged at step {step + 1}: the loss is {loss}, the gradient's norm {norm} (examples {names} ...)",
            hint="lower the learning rate, or look at these examples",
        )
    for optimizer in optimizers:
        optimizer.step(scale)
    return loss, norm


def _count(progress: Progress, batch: Sequence[Rectangle], loss: float) -> None:
    progress.tokens += sum(part.tokens for part in batch)
    progress.supervised_tokens += sum(len(part.rows) for part in batch)
    progress.loss_last = loss
    if math.isnan(progress.loss_first):
        progress.loss_first = loss


def _evaluate(trainable: Trainable, validation: Sequence[Rectangle], progress: Progress, emit: Emit) -> None:
    if validation:
        progress.validation_loss = evaluate(trainable, validation)
        emit(Event("train.eval", {"step": progress.step, "validation_loss": progress.validation_loss}))


def _figures(progress: Progress, course: Course, clock: _Clock, scale: float, norm: float) -> dict[str, Any]:
    per_s = clock.tokens_per_s(progress)
    left = course.steps - progress.step
    return {
        "step": progress.step,
        "steps": course.steps,
        "loss": progress.loss_last,
        "lr_scale": scale,
        "grad_norm": norm,
        "tokens": progress.tokens,
        "tokens_per_s": per_s,
        "eta_s": left * progress.tokens / progress.step / per_s if per_s else 0.0,
    }


def _resume(
    trainable: Trainable, optimizers: Sequence[Optimizer], course: Course, folder: Path, emit: Emit
) -> Progress:
    found = checkpoint.newest(folder)
    if found is None:
        return Progress()
    if found.state["identity"] != course.identity:
        raise Conflict(
            f"the checkpoint in {folder} belongs to another run (other data, base or recipe)",
            hint="use another folder, or delete it to start afresh",
        )
    with torch.no_grad():
        for name, parameter in trainable.parameters.items():
            parameter.copy_(found.tensors[f"parameter/{name}"])
    for index, optimizer in enumerate(optimizers):
        prefix = f"optimizer{index}/"
        optimizer.load_state({k[len(prefix) :]: v for k, v in found.tensors.items() if k.startswith(prefix)})
    emit(Event("train.resumed", {"step": found.step}))
    return Progress.from_json(found.state)


def _save(
    trainable: Trainable,
    optimizers: Sequence[Optimizer],
    course: Course,
    progress: Progress,
    folder: Path,
    emit: Emit,
) -> None:
    tensors = {f"parameter/{name}": value for name, value in trainable.parameters.items()}
    for index, optimizer in enumerate(optimizers):
        tensors |= {f"optimizer{index}/{name}": value for name, value in optimizer.state().items()}
    checkpoint.write(folder, progress.step, tensors, {**progress.to_json(), "identity": course.identity})
    emit(Event("train.checkpoint", {"step": progress.step}))


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
