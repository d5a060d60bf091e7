"""`sft`: supervised fine-tuning of a LoRA adapter on the assistant's turns of a dataset.

Takes a loaded base and a dataset's folder, leaves a PEFT folder. Knows no store, no registry and no engine.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path

import torch

from espalier.core.errors import InvalidInput
from espalier.core.events import Emit, Event
from espalier.nn.adapters import Adapters, attach_adapters, save_adapter
from espalier.nn.base import LoadedBase
from espalier.nn.optimizers import AdamW
from espalier.store.examples import read_examples
from espalier.tokens.mask import Tokenized, tokenize
from espalier.tokens.pack import Rectangle, group, rectangle
from espalier.train.adapted import adapted
from espalier.train.audit import MaskAudit, audit
from espalier.train.loop import Course, fit
from espalier.train.machine import compute_dtype, keep_freed_memory
from espalier.train.plan import Plan, ShuffledCorpus
from espalier.train.recipe import SftSpec
from espalier.train.schedule import lr_scale
from espalier.train.trainable import Trainable

VALIDATION_EXAMPLES = 64  # enough for a curve; five looks cost a tenth of an epoch of a thousand examples


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a run made and what it took."""

    steps: int
    tokens: int
    supervised_tokens: int
    loss_first: float | None
    loss_last: float | None
    validation_loss: float | None  # None when the dataset has no validation split
    adapter_sha256: str
    wall_s: float
    cpu_s: float
    audit: MaskAudit


def sft(
    spec: SftSpec,
    base: LoadedBase,
    dataset_dir: Path,
    out_dir: Path,
    *,
    checkpoint_dir: Path,
    emit: Emit,
    dataset: str = "",
) -> TrainResult:
    """Tune an adapter on `dataset_dir`'s train split and write it to `out_dir`; `dataset` is the digest to record.

    The adapters stay on `base.model`, which is therefore used up. `checkpoint_dir` outlives a crash: the same call
    goes on where it stood and ends in the same adapter bytes. Raises InvalidInput (nothing to learn, divergence,
    unknown targets), Conflict (the checkpoint is of another run), UnsupportedModel.
    """
    context_tokens = min(spec.context_tokens, base.context_tokens)
    documents, report = audit(base.tokenizer, read_examples(dataset_dir, "train"), context_tokens=context_tokens)
    emit(Event("train.audit", report.to_json()))
    keep_freed_memory()
    adapters = attach_adapters(base.model, spec.lora, spec.seed)
    trainable = adapted(base, adapters, compute_dtype())
    plan = Plan(spec.pack_tokens, spec.packs_per_step, f"sft/{spec.seed}")
    corpus = ShuffledCorpus(documents, window_documents=spec.window_documents, seed=f"sft/{spec.seed}")
    steps = plan.count(corpus, spec.epochs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)  # dropout alone draws from it
        progress = fit(
            trainable,
            [_optimizer(spec, trainable)],
            plan,
            corpus,
            _course(spec, steps, _identity(spec, base, documents)),
            validation=_validation(base, dataset_dir, spec, context_tokens),
            checkpoint_dir=checkpoint_dir,
            emit=emit,
        )
    adapter_sha256 = _write(out_dir, adapters, base, spec, dataset)
    return TrainResult(
        steps=progress.step,
        tokens=progress.tokens,
        supervised_tokens=progress.supervised_tokens,
        loss_first=progress.loss_first,
        loss_last=progress.loss_last,
        validation_loss=progress.validation_loss,
        adapter_sha256=adapter_sha256,
        wall_s=progress.wall_s,
        cpu_s=progress.cpu_s,
        audit=report,
    )


def _course(spec: SftSpec, steps: int, identity: str) -> Course:
    warmup_steps = min(spec.warmup_steps, steps // 5)
    return Course(
        steps=steps,
        lr_scale=lambda step: lr_scale(
            spec.schedule, step, steps=steps, warmup_steps=warmup_steps, decay_steps=steps // 3
        ),
        clip_norm=spec.clip_norm,
        workers=1 if spec.lora.dropout > 0 else 0,  # dropout draws from one stream, so its order must be fixed
        identity=identity,
        checkpoint_every_s=spec.checkpoint_every_s,
        checkpoint_every_steps=spec.checkpoint_every_steps,
        evaluate_every_steps=max(1, steps // 5),
    )


def _optimizer(spec: SftSpec, trainable: Trainable) -> AdamW:
    return AdamW(trainable.parameters, lr=spec.lr, betas=(0.9, 0.98), weight_decay=spec.weight_decay)


def _validation(base: LoadedBase, dataset_dir: Path, spec: SftSpec, context_tokens: int) -> list[Rectangle]:
    examples = islice(read_examples(dataset_dir, "validation"), VALIDATION_EXAMPLES)
    documents = [tokenize(base.tokenizer, example, context_tokens=context_tokens) for example in examples]
    documents = [document for document in documents if document.supervised]
    lengths = [len(document.ids) - 1 for document in documents]
    groups = group(lengths, rectangle_tokens=spec.pack_tokens, seed="validation")
    return [rectangle([documents[index] for index in members]) for members in groups]


def _identity(spec: SftSpec, base: LoadedBase, documents: Sequence[Tokenized]) -> str:
    """Digest of all that decides the adapter's bytes: settings, base and the very tokens."""
    settings = spec.model_dump(mode="json", exclude={"checkpoint_every_s", "checkpoint_every_steps"})
    digest = sha256(json.dumps([settings, base.base_digest], sort_keys=True).encode())
    for document in documents:
        digest.update(json.dumps([document.ids, document.weights]).encode())
    return digest.hexdigest()


def _write(out_dir: Path, adapters: Adapters, base: LoadedBase, spec: SftSpec, dataset: str) -> str:
    if not all(bool(tensor.isfinite().all()) for tensor in adapters.state().values()):
        raise InvalidInput("the adapter holds numbers that are not finite", hint="lower the learning rate")
    recipe = sha256(json.dumps(spec.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()
    save_adapter(out_dir, adapters, base, dataset=dataset, recipe=recipe)
    return sha256((out_dir / "adapter_model.safetensors").read_bytes()).hexdigest()
