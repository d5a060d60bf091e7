"""What a person writes to have a model learn from graders. Knows neither torch nor TRL."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from espalier.metrics.metric import MetricSpec
from espalier.train.recipe import TrainSpec

# Fields of every method that TRL's loop does not honour: a recipe that sets one is told.
_NOT_HONOURED = (
    "bad_examples", "checkpoint_every_s", "checkpointing", "decay_share", "evaluations", "freeze", "keep_best", "mix",
    "overlong", "pack_tokens", "packs_per_step", "stopping", "tune", "validation_examples", "where", "window_documents",
)  # fmt: skip


class GraderSpec(MetricSpec):
    """A metric whose value is a reward."""

    weight: float = Field(1.0, description="what its value counts beside the other graders'")


class GrpoSpec(TrainSpec):
    """Learn from graders: each prompt is answered several times, and answers better than their group's mean gain."""

    epochs: int = Field(1, ge=1, description="passes over the prompts")
    lr: float = Field(1e-5, gt=0, description="peak rate; small, as each step's gradient is a noisy estimate")
    graders: tuple[GraderSpec, ...] = Field((), description="metrics by name, with options and weights")
    reward_model: str = Field("", description="folder of an adapter trained by `method: reward` on the same base")
    reward_model_weight: float = Field(1.0, description="what its reward counts beside the graders'")
    generations: int = Field(8, ge=2, description="answers to each prompt")
    prompts_per_step: int = Field(4, ge=1, description="prompts whose answers make one step")
    max_completion_tokens: int = Field(256, ge=1, description="longest answer")
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    beta: float = Field(0.0, ge=0, description="weight of the KL to what the run began with; 0 = none, TRL's default")
    epsilon: float = Field(0.2, gt=0, description="how far a step's ratio of probabilities may go before it is clipped")
    epsilon_high: float = Field(0.0, ge=0, description="the same upwards; 0 = epsilon (DAPO has 0.28)")
    iterations: int = Field(1, ge=1, description="steps on each set of answers")
    loss: Literal["grpo", "dapo", "dr_grpo", "bnpo"] = Field("dapo", description="how tokens are averaged, as in TRL")
    scale_rewards: Literal["group", "batch", "none"] = Field("group", description="by what advantages are divided")
    mask_truncated: bool = Field(False, description="answers that end by length teach nothing")
    checkpoint_every_steps: int = Field(25, ge=1, description="TRL's checkpoints, of the adapter and the optimizer")

    @model_validator(mode="after")
    def _check(self) -> GrpoSpec:
        for name in _NOT_HONOURED:
            if getattr(self, name) != TrainSpec.model_fields[name].get_default(call_default_factory=True):
                raise ValueError(f"{name}: TRL's loop, which `grpo` runs in, does not know it; leave it out")
        if not self.graders and not self.reward_model:
            raise ValueError("graders: name at least one, or a reward_model")
        if self.schedule == "wsd":
            raise ValueError("schedule: TRL's loop has cosine, linear and constant")
        if self.lora.dropout:
            raise ValueError("lora.dropout: answers are graded without dropout, so grpo learns without it")
        return self
