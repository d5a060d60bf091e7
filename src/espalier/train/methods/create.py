"""`create`: a tokenizer and a Llama from scratch, from one dataset; a folder transformers can load comes out.

The dataset is read in its own order, in windows, so it may be a curriculum and need not fit in memory. Knows no file
format but the dataset's and the model's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from espalier.core.errors import InvalidInput
from espalier.core.events import Emit
from espalier.core.types import Example
from espalier.nn.assembly import dense_decoder
from espalier.nn.kernels.compiling import kernels_in_use
from espalier.nn.mimetic import write_copying
from espalier.nn.optimizers import AdamW, Muon
from espalier.nn.shape import LeanShape, plain_shape
from espalier.store.disk import write_file
from espalier.store.examples import read_examples
from espalier.tokens.mask import tokenize
from espalier.tokens.pack import Strip, lay
from espalier.tokens.tokenizer import ChatTokenizer, load_tokenizer, save_tokenizer, train_tokenizer
from espalier.train.learner import Learner
from espalier.train.loop import Course, fit
from espalier.train.machine import compute_dtype, keep_freed_memory
from espalier.train.objective import Likelihood
from espalier.train.parallel import one_thread_each
from espalier.train.plan import Plan, Strips
from espalier.train.recipe import CreateSpec, ShapeSpec
from espalier.train.schedule import lr_scale


@dataclass(frozen=True, slots=True)
class CreateResult:
    """What a run made and what it took."""

    parameters: int
    steps: int
    tokens: int
    supervised_tokens: int
    loss_first: float | None
    loss_last: float | None
    validation_loss: float | None  # None when the dataset has no validation split
    model_sha256: str
    wall_s: float
    cpu_s: float


def create(spec: CreateSpec, dataset_dir: Path, out_dir: Path, *, emit: Emit, checkpoint_dir: Path) -> CreateResult:
    """Train by `spec` on the dataset in `dataset_dir`; write model, tokenizer and configs to `out_dir`.

    `checkpoint_dir` outlives a crash: the same call goes on where it stood. Because a wsd schedule is flat until it
    decays, a checkpoint taken before that may be continued under another `steps`; a change of anything else is
    refused.
    Raises InvalidInput (nothing to train on, divergence, a shape mimetic init does not fit), Conflict (a foreign
    checkpoint).
    """
    keep_freed_memory()
    tokenizer = _tokenizer(spec, dataset_dir, checkpoint_dir)
    shape = _shape(spec.shape)
    weights = initial_weights(shape, seed=spec.seed, mimetic=spec.mimetic)
    backbone = dense_decoder(weights, shape, compute_dtype())
    matrices = {name: w for name, w in weights.items() if w.ndim == 2 and "embed_tokens" not in name}
    others = {name: w for name, w in weights.items() if name not in matrices}
    plan = Plan(spec.pack_tokens, spec.packs_per_step, f"create/{spec.seed}")
    with one_thread_each(os.cpu_count() or 1) as world:
        progress = fit(
            Learner(backbone, Likelihood()),
            [
                Muon(matrices, lr=spec.muon_lr, weight_decay=spec.weight_decay),
                AdamW(others, lr=spec.adamw_lr, betas=(0.9, 0.97)),
            ],
            plan,
            _OrderedCorpus(dataset_dir, tokenizer, spec),
            _course(spec, tokenizer),
            world=world,
            validation=plan.packs(_validation(dataset_dir, tokenizer, spec)),
            checkpoint_dir=checkpoint_dir,
            emit=emit,
        )
    model_sha256 = save_model(out_dir, weights, spec.shape, tokenizer)
    return CreateResult(
        parameters=sum(w.numel() for w in weights.values()),
        steps=progress.step,
        tokens=progress.tokens,
        supervised_tokens=progress.supervised_tokens,
        loss_first=progress.loss_first,
        loss_last=progress.loss_last,
        validation_loss=progress.validation_loss,
        model_sha256=model_sha256,
        wall_s=progress.wall_s,
        cpu_s=progress.cpu_s,
    )


def _course(spec: CreateSpec, tokenizer: ChatTokenizer) -> Course:
    def scale(step: int) -> float:
        return lr_scale(
            spec.schedule,
            step,
            steps=spec.steps,
            warmup_steps=spec.warmup_steps,
            decay_steps=spec.decay_steps,
            floor=0.02,
        )

    return Course(
        steps=spec.steps,
        lr_scale=scale,
        identity=_identity(spec, tokenizer),
        checkpoint_every_s=spec.checkpoint_every_s,
        evaluate_every_steps=200,
    )


def initial_weights(shape: LeanShape, *, seed: int, mimetic: bool) -> dict[str, Tensor]:
    """Fresh float32 weights under transformers' names; outputs into the residual start small."""
    draw = torch.Generator().manual_seed(seed)
    attention, keys = shape.heads * shape.head_width, shape.key_heads * shape.head_width
    inward, outward = 0.6 * shape.width**-0.5, 0.02 * (2 * shape.layers) ** -0.5
    sizes = {
        "self_attn.q_proj": (attention, shape.width, inward),
        "self_attn.k_proj": (keys, shape.width, inward),
        "self_attn.v_proj": (keys, shape.width, inward),
        "self_attn.o_proj": (shape.width, attention, outward),
        "mlp.gate_proj": (shape.hidden, shape.width, inward),
        "mlp.up_proj": (shape.hidden, shape.width, inward),
        "mlp.down_proj": (shape.width, shape.hidden, outward),
    }
    weights = {"model.embed_tokens.weight": torch.randn(shape.vocabulary, shape.width, generator=draw) * 0.02}
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}."
        for name, (rows, columns, gain) in sizes.items():
            weights[f"{prefix}{name}.weight"] = torch.randn(rows, columns, generator=draw) * gain
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{prefix}{name}.weight"] = torch.ones(shape.width)
    weights["model.norm.weight"] = torch.ones(shape.width)
    if mimetic:
        write_copying(weights, shape, seed=seed)
    return {name: weight.requires_grad_() for name, weight in weights.items()}


def save_model(out_dir: Path, weights: dict[str, Tensor], shape: ShapeSpec, tokenizer: ChatTokenizer) -> str:
    """Write weights (bf16), configs and the tokenizer's files to `out_dir`; returns the weights' sha256."""
    out_dir.mkdir(parents=True, exist_ok=True)
    rounded = {name: weight.detach().to(torch.bfloat16).contiguous() for name, weight in sorted(weights.items())}
    data = save(rounded, metadata={"format": "pt"})
    write_file(out_dir / "model.safetensors", data)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_heads,
        "head_dim": shape.width // shape.heads,
        "max_position_embeddings": shape.context_tokens,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
    }
    generation = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "do_sample": False}
    (out_dir / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (out_dir / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    save_tokenizer(tokenizer, out_dir, context_tokens=shape.context_tokens)
    return sha256(data).hexdigest()


class _OrderedCorpus:
    """The dataset's train split in its own order, tokenized a window at a time as it is asked for."""

    def __init__(self, dataset_dir: Path, tokenizer: ChatTokenizer, spec: CreateSpec) -> None:
        self._dir, self._tokenizer, self._spec = dataset_dir, tokenizer, spec
        self._examples: Iterator[Example] = iter(())
        self._next = (-1, -1)
        self._window: list[Strip] = []

    @property
    def documents(self) -> Strips:
        """Those of the window asked for last."""
        return Strips(self._window)

    def window(self, epoch: int, index: int) -> Sequence[int]:
        size = self._spec.window_documents
        if (epoch, index) != self._next:
            self._examples = islice(read_examples(self._dir, "train"), index * size, None)
        self._next = (epoch, index + 1)
        raw = list(islice(self._examples, size))
        self._window = [strip for example in raw if len((strip := _lay(self._tokenizer, example, self._spec)).rows)]
        if raw and not self._window:
            raise InvalidInput(f"none of {len(raw)} examples from {raw[0].id} on has a token to learn")
        return range(len(self._window))


def _lay(tokenizer: ChatTokenizer, example: Example, spec: CreateSpec) -> Strip:
    document = tokenize(tokenizer, example, context_tokens=spec.shape.context_tokens)
    if not example.messages:
        document.weights = [weight * spec.text_weight for weight in document.weights]
    return lay(document)


def _validation(dataset_dir: Path, tokenizer: ChatTokenizer, spec: CreateSpec) -> list[Strip]:
    examples = islice(read_examples(dataset_dir, "validation"), 512)
    return [strip for example in examples if len((strip := _lay(tokenizer, example, spec)).rows)]


def _tokenizer(spec: CreateSpec, dataset_dir: Path, checkpoint_dir: Path) -> ChatTokenizer:
    """The run's tokenizer: from the checkpoint folder when it was trained before, else trained now and kept there."""
    folder = checkpoint_dir / "tokenizer"
    if not (folder / "chat_template.jinja").is_file():  # written last
        trained = train_tokenizer(_tokenizer_texts(spec, dataset_dir), vocabulary=spec.shape.vocabulary)
        save_tokenizer(trained, folder, context_tokens=spec.shape.context_tokens)
    return load_tokenizer(folder)


def _tokenizer_texts(spec: CreateSpec, dataset_dir: Path) -> Iterator[str]:
    total = sum(1 for _ in read_examples(dataset_dir, "train"))
    stride = max(1, total // spec.tokenizer_documents)
    for example in islice(read_examples(dataset_dir, "train"), 0, None, stride):
        yield example.text or "\n".join(message.content for message in example.messages)
    pairs = [f"{number:02d}" for number in range(100)]
    for _ in range(200):  # every pair of digits becomes one id
        yield " ".join(pairs)


def _shape(spec: ShapeSpec) -> LeanShape:
    return plain_shape(
        vocabulary=spec.vocabulary,
        width=spec.width,
        layers=spec.layers,
        heads=spec.heads,
        key_heads=spec.key_heads,
        hidden=spec.hidden,
        rope_theta=spec.rope_theta,
    )


def _identity(spec: CreateSpec, tokenizer: ChatTokenizer) -> dict[str, Any]:
    """What the state so far depends on; a wsd run's length does not matter before it decays."""
    left_out = {"checkpoint_every_s"} | ({"steps", "decay_steps"} if spec.schedule == "wsd" else set())
    return {
        "recipe": spec.model_dump(mode="json", exclude=left_out),
        "tokenizer": tokenizer.digest,
        "arithmetic": [str(compute_dtype()), *kernels_in_use()],
    }
