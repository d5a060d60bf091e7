"""What a person writes down to train: `TrainSpec`, which every method extends, and `CreateSpec` (a model from scratch).

Every default says where it came from.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from espalier.core.types import Spec
from espalier.nn.freezing import FreezeSpec
from espalier.nn.lora import LoraSpec
from espalier.train.schedule import ScheduleName


class ShapeSpec(Spec):
    """A dense Llama. The defaults are seedling's: 6.2M parameters, 12.3 MB in bf16."""

    vocabulary: int = Field(
        4096, ge=300, description="token ids; at 4096 an embedding of 256 takes a sixth of the parameters"
    )
    width: int = Field(256, ge=32, description="the widest that leaves six layers under the wheel's 16 MB")
    layers: int = Field(6, ge=1, description="copying needs two, labelling on top of it a few more")
    heads: int = Field(8, ge=1, description="heads of 32: many narrow heads, for many things to look up at once")
    key_heads: int = Field(
        8, ge=1, description="as many as heads: the mimetic construction needs its own keys per head"
    )
    hidden: int = Field(768, ge=32, description="three times the width, Llama's usual 8/3 rounded to the matrix unit")
    context_tokens: int = Field(2048, ge=64, description="a ticket with two solved examples before it fits")
    rope_theta: float = Field(
        5e5, gt=0, description="slow rotary pairs, which mimetic matching needs (Llama 3's value)"
    )


class CreateSpec(Spec):
    """Train a tokenizer and a model from scratch on a dataset, in the dataset's order (so a curriculum stays one)."""

    shape: ShapeSpec = ShapeSpec()
    seed: int = Field(0, ge=0)
    steps: int = Field(6000, ge=1, description="optimizer steps")
    pack_tokens: int = Field(4096, ge=64, description="tokens computed at once; bf16 products saturate two cores here")
    packs_per_step: int = Field(
        2, ge=1, description="8192 tokens a step: small models gain more from steps than from size"
    )
    window_documents: int = Field(1024, ge=1, description="documents packed together: the more, the fuller the packs")
    schedule: ScheduleName = Field("wsd", description="one trunk, ended when time is up")
    warmup_steps: int = Field(60, ge=0, description="from the spike")
    decay_steps: int = Field(1200, ge=0, description="a fifth of the run, as MiniCPM found enough")
    muon_lr: float = Field(0.012, gt=0, description="from the spike: beat AdamW at 3e-3")
    adamw_lr: float = Field(0.003, gt=0, description="embedding and gains, from the spike")
    weight_decay: float = Field(0.01, ge=0, description="on matrices, from the spike")
    text_weight: float = Field(0.5, gt=0, description="loss weight of a raw-text token against an answer's 1")
    mimetic: bool = Field(True, description="write copying heads into the initial weights")
    tokenizer_documents: int = Field(
        30000, ge=1, description="documents the tokenizer is trained on, spread over the dataset"
    )
    checkpoint_every_s: float = Field(120, gt=0)


class StoppingSpec(Spec):
    """When a run may end before its last epoch."""

    patience: int = Field(
        3, ge=1, description="looks at the validation split in a row without a better loss, after which it ends"
    )
    min_gain: float = Field(0.0, ge=0, description="what a look must gain on the best loss so far to count as better")


class WhereSpec(Spec):
    """On what a run computes; `where: ray` alone is its kind. The result is the same bytes wherever it runs."""

    kind: Literal["here", "processes", "ray"] = Field(
        "here", description="this process; several processes of this machine (torchrun); workers of a Ray cluster"
    )
    workers: int = Field(2, ge=1, description="processes or Ray workers; with GPUs, one for each")
    shard: bool = Field(False, description="spread a base that fits no single device over the workers (FSDP2)")

    @model_validator(mode="before")
    @classmethod
    def _from_kind(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value


class TrainSpec(Spec):
    """What every method has: how long, how fast, what is trained, how careful, and where."""

    method: str = Field("", description="sft, cpt, dpo, orpo, kto, classify, reward, distill, grpo; empty = sft")
    base: str = Field("builtin:seedling", description="builtin:NAME, path:DIR or hf:OWNER/NAME")
    seed: int = Field(0, ge=0)
    epochs: int = Field(2, ge=1, description="passes over the main dataset")
    steps: int = Field(0, ge=0, description="end after so many steps instead; 0 = by epochs")
    tune: Literal["lora", "full", "head"] = Field(
        "lora", description="an adapter; every weight; or only the head of a method that has one"
    )
    lora: LoraSpec = Field(LoraSpec(), description="the adapter; one that is gone on from keeps its own, but dropout")
    freeze: FreezeSpec = FreezeSpec()
    quantise: Literal["none", "nf4", "int8"] = Field(
        "none", description="hold the frozen base in 4 or 8 bits (QLoRA); the adapter stays float32"
    )
    lr: float = Field(4e-3, gt=0, description="peak rate; 2e-4 is usual for models of billions, small ones want more")
    weight_decay: float = Field(0.0, ge=0)
    schedule: ScheduleName = "linear"
    warmup_steps: int = Field(10, ge=0, description="never more than a fifth of the run")
    decay_share: float = Field(0.33, gt=0, le=1, description="of a wsd run, the part in which the rate falls")
    pack_tokens: int = Field(
        1024, ge=64, description="tokens computed at once, on one core; a longer document goes alone"
    )
    packs_per_step: int = Field(
        2,
        ge=1,
        description="packs whose gradients make one step; one a core is fastest, and the sum is exact for any number",
    )
    window_documents: int = Field(256, ge=1, description="documents packed together, against tails that do not fit")
    clip_norm: float = Field(1.0, gt=0, description="longest gradient; a longer one is scaled down")
    context_tokens: int = Field(1024, ge=16, description="longest example; see `overlong`")
    overlong: Literal["truncate", "split", "refuse"] = Field(
        "truncate", description="what becomes of a longer example: it loses its end, is cut in pieces, or stops the run"
    )
    bad_examples: Literal["drop", "refuse"] = Field(
        "drop", description="what becomes of an example nothing can be learnt from; what is dropped is counted"
    )
    mix: dict[str, float] = Field(
        default_factory=dict,
        description="further datasets by the name of their input (mix.NAME): tokens an epoch, as a share of the main's",
    )
    checkpointing: bool = Field(
        False, description="keep layer inputs alone and compute the rest again: less memory, a third more time"
    )
    validation_examples: int = Field(
        64, ge=0, description="examples of the validation split looked at during training; 0 = none"
    )
    evaluations: int = Field(5, ge=1, description="looks at them, spread over the run; the last step is one")
    keep_best: bool = Field(False, description="end with the weights of the best look instead of the last step's")
    stopping: StoppingSpec | None = Field(None, description="end early when validation gets no better")
    checkpoint_every_s: float = Field(10, gt=0)
    checkpoint_every_steps: int = Field(0, ge=0, description="0 = by time alone")
    usd_per_hour: float = Field(0.0, ge=0, description="price of the machine, for the estimate and the running cost")
    threads: int = Field(0, ge=0, description="CPU cores to use; 0 = all; the result is the same")
    where: WhereSpec = WhereSpec()


# What has no part in the result; the base counts by its digest, not by its name.
WITHOUT_EFFECT = frozenset(
    {"base", "checkpoint_every_s", "checkpoint_every_steps", "method", "threads", "usd_per_hour", "where"}
)


class SftSpec(TrainSpec):
    """Tune on the assistant's turns of a dataset."""


class CptSpec(TrainSpec):
    """Go on pre-training: every token of raw text, or of a rendered conversation, is learnt."""

    overlong: Literal["truncate", "split", "refuse"] = Field(
        "split", description="a document longer than the context is cut into pieces of it, no token lost"
    )
