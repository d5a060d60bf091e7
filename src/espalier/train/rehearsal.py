"""A training before it is done: what it would learn from, what it would take, and which rate suits it.

Everything here begins as the training would (`train/runner.make_ready`) and leaves nothing behind but caches. Knows no
store and no registry.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence

import numpy as np

from espalier.core.errors import InvalidInput
from espalier.core.events import Emit
from espalier.nn.locate import locate_base
from espalier.tokens.pack import Pack
from espalier.train.audit import MaskAudit
from espalier.train.estimate import Estimate, Workload, estimate, look_at_machine, read_figures
from espalier.train.job import Job
from espalier.train.lrrange import LrRange, grow_rates, try_rates
from espalier.train.method import OpenModel, load_method
from espalier.train.parallel import World, one_thread_each
from espalier.train.runner import Ready, make_ready

PROBE_S = 2.0  # of measuring, after one step that is not counted


def audit_job(job: Job, emit: Emit, open_model: OpenModel | None = None) -> MaskAudit:
    """What the training would see. Raises what the training would raise before its first step."""
    _check_loop(job, "an audit")
    return make_ready(job, emit, open_model=open_model).prepared.audit


def estimate_job(job: Job, emit: Emit, *, tokens_per_s: float = 0.0, open_model: OpenModel | None = None) -> Estimate:
    """What the training would take; a rate of 0 is measured here, for two seconds.

    A base that does not fit is not loaded: then the memory is told, and what would fit, but neither tokens nor time.
    """
    _check_loop(job, "an estimate")
    spec = job.spec
    figures, machine = read_figures(locate_base(spec.base)), look_at_machine(spec)
    before = estimate(spec, figures, machine, Workload())
    if not before.fits:
        return before
    ready = make_ready(job, emit, open_model=open_model)
    workload = measure_workload(ready)
    if not tokens_per_s:
        with one_thread_each(spec.threads or os.cpu_count() or 1) as world:
            tokens_per_s = measure_rate(ready, world)
    return estimate(spec, figures, machine, workload, tokens_per_s=tokens_per_s)


def measure_workload(ready: Ready) -> Workload:
    """How many tokens and steps the plan has; nothing is computed."""
    spec, corpus = ready.job.spec, ready.corpus
    lengths = np.asarray(ready.prepared.documents.lengths, np.int64)
    tokens = [int(lengths[corpus.order(epoch)].sum()) for epoch in range(spec.epochs)]
    steps = ready.plan.count(corpus, spec.epochs)
    total = sum(tokens)
    if spec.steps:
        total, steps = int(total * spec.steps / max(1, steps)), spec.steps
    audit = ready.prepared.audit
    return Workload(total, steps, int(lengths.max(initial=0)), audit.supervised_share)


def measure_rate(ready: Ready, world: World, seconds: float = PROBE_S) -> float:
    """Tokens a second of whole gradients on this machine. The weights stay as they are."""
    learner = ready.learner
    parameters = list(learner.parameters.values())
    tokens, began_s = 0, 0.0
    for number, packs in enumerate(_steps(ready)):
        totals = learner.total(world, packs)
        for _ in world.each(len(packs), lambda index: learner.gradient(packs[index], totals, parameters)):  # noqa: B023
            pass
        if number == 0:  # the first makes kernels and tables
            began_s = time.monotonic()
            continue
        tokens += sum(pack.tokens for pack in packs)
        if time.monotonic() - began_s > seconds:
            break
    return tokens / (time.monotonic() - began_s)


def find_rate(
    job: Job, emit: Emit, *, lowest: float, highest: float, steps: int, open_model: OpenModel | None = None
) -> LrRange:
    """The learning-rate range test on the job's own data and batches; no weights are kept."""
    _check_loop(job, "a range test")
    rates = grow_rates(lowest, highest, steps)
    ready = make_ready(job, emit, open_model=open_model)
    spec = job.spec
    with one_thread_each(spec.threads or os.cpu_count() or 1) as world:
        return try_rates(
            ready.learner,
            world,
            _steps(ready),
            rates,
            weight_decay=spec.weight_decay,
            clip_norm=spec.clip_norm,
            emit=emit,
        )


def _steps(ready: Ready) -> Iterator[Sequence[Pack]]:
    return (packs for _, packs in ready.plan.steps(ready.corpus))


def _check_loop(job: Job, what: str) -> None:
    if load_method(job.method).run is not None:
        raise InvalidInput(
            f"method {job.method} trains on what the model says while it trains, so there can be no {what.split()[-1]}",
            hint="try a few steps of it instead: --param steps=5",
        )
