"""What a person writes down to train: `CreateSpec` (a model from scratch) and `SftSpec` (an adapter on a base).

Every default says where it came from.
"""

from __future__ import annotations

from pydantic import Field

from espalier.core.types import Spec
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
    rectangle_tokens: int = Field(
        4096, ge=64, description="tokens computed at once; bf16 products saturate two cores here"
    )
    rectangles_per_step: int = Field(
        2, ge=1, description="8192 tokens a step: small models gain more from steps than from size"
    )
    window_documents: int = Field(
        1024, ge=1, description="documents sorted by length together; padding stays under 3 percent"
    )
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


class SftSpec(Spec):
    """Tune a LoRA adapter on the assistant's turns of a dataset."""

    seed: int = Field(0, ge=0)
    epochs: int = Field(2, ge=1)
    lora: LoraSpec = LoraSpec()
    lr: float = Field(4e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    schedule: ScheduleName = "linear"
    warmup_steps: int = Field(10, ge=0, description="never more than a fifth of the run")
    rectangle_tokens: int = Field(
        1024, ge=64, description="tokens computed at once, on one core; a longer document goes alone"
    )
    rectangles_per_step: int = Field(
        2,
        ge=1,
        description="one a core; small steps, and many of them: 81 large ones left two fields of seven unlearnt",
    )
    window_documents: int = Field(256, ge=1, description="documents sorted by length together, against padding")
    clip_norm: float = Field(1.0, gt=0)
    context_tokens: int = Field(1024, ge=16, description="longer examples lose their end, and the audit says how many")
    checkpoint_every_s: float = Field(10, gt=0)
    checkpoint_every_steps: int = Field(0, ge=0, description="0 = by time alone")
