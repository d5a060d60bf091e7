"""One training from its description to a folder of weights: base, data, method and loop brought together.

A `Job` is plain values, so that another process, a torchrun rank or a Ray worker can do it. Knows no store, no registry
and no engine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from espalier.core.errors import InvalidInput
from espalier.core.events import Emit, Event
from espalier.core.ids import canonical_json
from espalier.nn.base import Dtype, LoadedBase, load_base
from espalier.nn.kernels.compiling import kernels_in_use
from espalier.nn.locate import locate_base
from espalier.nn.optimizers import AdamW
from espalier.tokens.pack import Strip
from espalier.train.estimate import check_fit, look_at_machine, read_figures
from espalier.train.job import Job, TrainResult
from espalier.train.learner import Learner
from espalier.train.loop import Course, Stopping, fit
from espalier.train.machine import compute_dtype, keep_freed_memory
from espalier.train.method import Method, OpenModel, Prepared, Setting, load_method
from espalier.train.mixing import MixedCorpus
from espalier.train.parallel import World, one_thread_each
from espalier.train.plan import Plan
from espalier.train.progress import Progress
from espalier.train.recipe import WITHOUT_EFFECT, TrainSpec
from espalier.train.schedule import lr_scale
from espalier.train.tuning import Tuned, tune


@dataclass(frozen=True, slots=True)
class Ready:
    """A job whose base is loaded and whose data is laid out; nothing has been learnt yet."""

    job: Job
    method: Method
    base: LoadedBase
    tuned: Tuned
    setting: Setting
    prepared: Prepared

    @property
    def plan(self) -> Plan:
        spec = self.job.spec
        return Plan(spec.pack_tokens, spec.packs_per_step, f"{self.method.name}/{spec.seed}")

    @property
    def corpus(self) -> MixedCorpus:
        spec = self.job.spec
        seed = f"{self.method.name}/{spec.seed}"
        return MixedCorpus(self.prepared.documents, seed=seed, window_documents=spec.window_documents)

    @property
    def learner(self) -> Learner:
        return Learner(self.tuned.backbone, self.prepared.objective, self.prepared.head)


def run(job: Job, emit: Emit, world: World | None = None, open_model: OpenModel | None = None) -> TrainResult:
    """Train and write the adapter or the model to `job.out_dir`; without `world` on this process' own cores.

    The same job goes on from `job.checkpoint_dir` and ends in the same bytes. Raises InvalidInput (nothing to learn,
    divergence, unknown targets), Conflict (the checkpoint is of another run), UnsupportedModel, DigestMismatch.
    """
    method = load_method(job.method)
    if method.run is not None:
        return method.run(job, emit, open_model)
    keep_freed_memory()
    with _world(job, world) as together:
        ready = make_ready(job, emit if together.rank == 0 else _silently, world=together, open_model=open_model)
        progress = _train(ready, together, emit)
        if together.rank == 0:
            _write(ready)
    head = 0 if ready.prepared.head is None else sum(part.numel() for part in ready.prepared.head.parameters.values())
    return TrainResult(progress, ready.base.base_digest, ready.tuned.trained + head, ready.tuned.total + head)


def make_ready(job: Job, emit: Emit, *, world: World | None = None, open_model: OpenModel | None = None) -> Ready:
    """Load the base, make it learn what the spec says, and lay the data out: all that comes before the first step."""
    method = load_method(job.method)
    spec = job.spec
    check_fit(spec, read_figures(locate_base(spec.base)), look_at_machine(spec))
    dtype: Dtype = "float32" if spec.tune == "full" else "auto"  # what is frozen needs no more than it is computed in
    device = "cpu" if spec.where.shard else ""  # what is spread over processes fits no single device
    base = load_base(spec.base, dtype=dtype, quantise=spec.quantise, device=device)
    if job.base:
        base = replace(base, spec=job.base)
    tuned = tune(spec, base, start=job.adapter, emit=emit)
    setting = Setting(
        spec=spec,
        base=base,
        backbone=tuned.backbone,
        sources=job.sources,
        context_tokens=min(spec.context_tokens, base.context_tokens, tuned.longest_tokens or spec.context_tokens),
        cache_dir=job.cache_dir,
        emit=emit,
        start=_start_digest(base, job.adapter),
        world=world,
        open_model=open_model,
    )
    prepared = method.prepare(setting)
    if spec.tune == "head" and prepared.head is None:
        raise InvalidInput(
            f"method {method.name} has no head, so with tune: head nothing would learn",
            hint="tune: lora or full; classify and reward have a head",
        )
    emit(Event("train.audit", prepared.audit.to_json()))
    return Ready(job, method, base, tuned, setting, prepared)


def _world(job: Job, world: World | None) -> AbstractContextManager[World]:
    return one_thread_each(job.spec.threads or os.cpu_count() or 1) if world is None else nullcontext(world)


def _train(ready: Ready, world: World, emit: Emit) -> Progress:
    job = ready.job
    spec, plan, corpus, learner = job.spec, ready.plan, ready.corpus, ready.learner
    steps = spec.steps or plan.count(corpus, spec.epochs)
    optimizer = AdamW(learner.parameters, lr=spec.lr, betas=(0.9, 0.98), weight_decay=spec.weight_decay)
    return fit(
        learner,
        [optimizer],
        plan,
        corpus,
        make_course(spec, steps, identify(ready)),
        world=world,
        validation=plan.packs(ready.prepared.validation),
        checkpoint_dir=job.checkpoint_dir,
        emit=emit,
    )


def make_course(spec: TrainSpec, steps: int, identity: Mapping[str, Any]) -> Course:
    """How a spec wants its steps done."""
    warmup_steps = min(spec.warmup_steps, steps // 5)
    return Course(
        steps=steps,
        lr_scale=lambda step: lr_scale(
            spec.schedule, step, steps=steps, warmup_steps=warmup_steps, decay_steps=int(steps * spec.decay_share)
        ),
        clip_norm=spec.clip_norm,
        identity=identity,
        checkpoint_every_s=spec.checkpoint_every_s,
        checkpoint_every_steps=spec.checkpoint_every_steps,
        evaluate_every_steps=max(1, steps // spec.evaluations),
        keep_best=spec.keep_best,
        stopping=Stopping(spec.stopping.patience, spec.stopping.min_gain) if spec.stopping else None,
        usd_per_hour=spec.usd_per_hour,
    )


def identify(ready: Ready) -> dict[str, Any]:
    """All that decides the result, by the name a person knows it under."""
    base = ready.base
    return {
        "method": ready.method.name,
        "base": ready.setting.start,
        "data": ready.prepared.documents.digest,
        "validation": _digest_strips(ready.prepared.validation),
        "recipe": ready.job.spec.model_dump(mode="json", exclude=set(WITHOUT_EFFECT)),
        "arithmetic": [str(compute_dtype(base.device)), *kernels_in_use(), ready.tuned.path],
        **ready.prepared.identity,
    }


def _digest_strips(strips: Sequence[Strip]) -> str:
    """Of what is looked at: it decides when a run stops, and which weights are the best."""
    found = sha256()
    for strip in strips:
        for part in (strip.ids, strip.rows, strip.targets, strip.weights):
            found.update(part.tobytes())
    return found.hexdigest()


def _start_digest(base: LoadedBase, adapter: Path | None) -> str:
    if adapter is None:
        return base.base_digest
    parts = [(adapter / name).read_bytes() for name in ("adapter_config.json", "adapter_model.safetensors")]
    return f"{base.base_digest}+{sha256(b''.join(parts)).hexdigest()}"


def _write(ready: Ready) -> None:
    job = ready.job
    values = job.spec.model_dump(mode="json", exclude=set(WITHOUT_EFFECT))
    recipe = sha256(canonical_json({"method": job.method, **values})).hexdigest()
    ready.tuned.save(job.out_dir, job.dataset, recipe)
    if ready.prepared.finish is not None:
        ready.prepared.finish(job.out_dir)


def _silently(event: Event) -> None:
    """An Emit for the processes that do not speak."""
