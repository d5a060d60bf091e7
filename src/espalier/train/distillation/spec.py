"""What a person writes to distil: who teaches, and how its word counts beside the answers'."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from espalier.core.types import Spec
from espalier.train.recipe import TrainSpec


class TeacherSpec(Spec):
    """Who teaches: a base on this machine, perhaps with an adapter, or an endpoint that tells log-probabilities."""

    base: str = Field("", description="builtin:NAME, path:DIR or hf:OWNER/NAME")
    adapter: str = Field("", description="folder of an adapter on it")
    endpoint: str = Field("", description="instead of a base: URL that ends in /v1 of a vLLM server")
    model: str = Field("", description="the endpoint's name of the model")
    key_env: str = Field("", description="environment variable that holds the endpoint's key; empty = none is sent")
    tokenizer: str = Field("", description="folder or Hub name of the endpoint's model, for its tokenizer")

    @model_validator(mode="after")
    def _check(self) -> TeacherSpec:
        if bool(self.base) == bool(self.endpoint):
            raise ValueError("name either a base or an endpoint")
        if self.endpoint and not (self.model and self.tokenizer):
            raise ValueError("an endpoint needs `model`, and `tokenizer`, to check that it cuts text alike")
        return self


class DistillSpec(TrainSpec):
    """Learn from a teacher of the same tokenizer."""

    teacher: TeacherSpec
    k: int = Field(64, ge=1, description="likeliest tokens kept of each position; all others count as one more")
    temperature: float = Field(1.0, gt=0, description="softens both distributions; 2 shows more of the unlikely tokens")
    divergence: Literal["forward", "reverse", "js"] = Field(
        "forward", description="KL(teacher | student), which covers; KL(student | teacher), which seeks; half of each"
    )
    alpha: float = Field(0.5, gt=0, le=1, description="share of the teacher's loss; the rest is the answers' own")

    @model_validator(mode="after")
    def _check_temperature(self) -> DistillSpec:
        if self.teacher.endpoint and self.temperature != 1.0:
            raise ValueError("temperature: an endpoint tells probabilities at temperature 1 only; leave it at 1")
        return self
