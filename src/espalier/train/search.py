"""What a search over a training recipe is: fields, how to draw them, what to look for. Knows no run and no Optuna."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from espalier.core.types import Spec


class Among(Spec):
    """One of a few values."""

    choices: tuple[float | int | str | bool | None, ...] = Field(min_length=1, description="the values to try")


class Between(Spec):
    """A number between two others, both included."""

    low: float = Field(description="smallest value")
    high: float = Field(description="largest value")
    log: bool = Field(False, description="draw its logarithm evenly: for learning rates")
    integer: bool = Field(False, description="whole numbers only")

    @model_validator(mode="after")
    def _in_order(self) -> Between:
        if self.low >= self.high:
            raise ValueError("low must be less than high")
        if self.log and self.low <= 0:
            raise ValueError("a logarithmic range starts above 0")
        return self


class SearchSpec(Spec):
    """A search: a training recipe, fields of it to vary, and how long."""

    recipe: str = Field(description="YAML file of the training whose fields are varied")
    space: dict[str, Annotated[Among | Between, Field(union_mode="left_to_right")]] = Field(
        min_length=1, description="field of the recipe, as lora.rank -> {choices: [...]} or {low, high, log, integer}"
    )
    trials: int = Field(
        20, ge=1, description="how many trainings, pruned ones counted; a repeated search adds the rest"
    )
    measure: str = Field(
        "validation_loss", description="metric of a training's run to judge by: validation_loss, accuracy ..."
    )
    direction: Literal["minimize", "maximize"] = "minimize"
    sampler: Literal["tpe", "random", "grid"] = Field("tpe", description="how the next trial is chosen")
    pruner: Literal["median", "hyperband", "none"] = Field(
        "median", description="ends trials early that look worse than others did at that step"
    )
    warmup_trials: int = Field(4, ge=0, description="trials that are never pruned, and drawn at random")
    seed: int = Field(0, ge=0)
