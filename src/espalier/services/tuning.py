"""A training as it is asked for: the recipe, what is laid over it, and the artifacts it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from espalier.core.types import Spec

if TYPE_CHECKING:
    from pathlib import Path

    from espalier.services.context import Context
    from espalier.train.recipe import TrainSpec


class TuneModel(Spec):
    """Which recipe, on which data, asked through which prompt."""

    recipe: str = Field(description="YAML file of a training: method, base, epochs, lr, lora ... (`config schema sft`)")
    dataset: str = Field(description="dataset:NAME@vN, or just NAME for its newest version")
    prompt: str = Field("", description="prompt:NAME@vN; empty = the questions as the dataset holds them")
    adapter: str = Field("", description="model:NAME@vN to go on from; empty = the recipe's base as it is")
    mix: tuple[str, ...] = Field((), description="NAME=DATASET for each name in the recipe's `mix`; may be given again")
    param: tuple[str, ...] = Field((), description="FIELD=VALUE over the recipe, e.g. lora.rank=8; may be given again")


def read_training(context: Context, recipe: str, param: tuple[str, ...]) -> tuple[str, TrainSpec, Path]:
    """The recipe's method, its spec with `param` laid over it, and its file. Raises InvalidInput, NotFound."""
    from espalier.core.recipefile import check_recipe, overlay, read_yaml
    from espalier.train.method import load_method

    path = context.place(recipe)
    data: Any = overlay(read_yaml(path), param)
    name = str(data.get("method") or "sft")
    return name, check_recipe(data, load_method(name).spec, path), path


def list_inputs(context: Context, request: TuneModel) -> dict[str, str]:
    """Port -> reference of what the step is given. Raises InvalidInput for what is no reference, NotFound."""
    from espalier.core.errors import InvalidInput
    from espalier.core.refs import Ref
    from espalier.services.bases import list_parts

    inputs = {"dataset": str(Ref.parse(request.dataset, kind="dataset"))}
    if request.prompt:
        inputs["prompt"] = str(Ref.parse(request.prompt, kind="prompt"))
    if request.adapter:
        if request.adapter.startswith(("run_", "sha256:", "./", "/")):
            raise InvalidInput(
                f"{request.adapter!r} is no model version, and a training goes on from one",
                hint="register it (step model.register), or train both in a pipeline: `adapter: tuned.adapter`",
            )
        inputs |= list_parts(context.store, str(Ref.parse(request.adapter, kind="model")))
    for given in request.mix:
        name, equals, dataset = given.partition("=")
        if not equals:
            raise InvalidInput(f"{given!r} names no dataset of the mix", hint="write --mix general=dataset:general@v1")
        inputs[f"mix.{name}"] = str(Ref.parse(dataset, kind="dataset"))
    return inputs
