"""Training: fine-tune an adapter on a dataset version, or make a base from scratch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from espalier.core.operations import operation
from espalier.core.types import Run, Spec

if TYPE_CHECKING:
    from espalier.services.context import Context


class TuneAdapter(Spec):
    """Which recipe, on which data, asked through which prompt."""

    recipe: str = Field(description="YAML file of a fine-tuning: base, epochs, rank, lr ... (see `config schema sft`)")
    dataset: str = Field(description="dataset:NAME@vN, or just NAME for its newest version")
    prompt: str = Field("", description="prompt:NAME@vN; empty = the questions as the dataset holds them")


@operation("training.sft", "POST /v1/training/sft", shape="job", positional=("recipe",), role="admin")
def sft(context: Context, request: TuneAdapter) -> Run:
    """Fine-tune a LoRA adapter on a base; the loss is taken on the answers only.

    Before the first step the mask audit says how much of the data is learnt from, and stops a run that would learn
    nothing. A killed training goes on from its checkpoint and ends in the same bytes.

    Example:
        espalier train recipe.yaml --dataset support --prompt support-dossier
    """
    from espalier.core.recipefile import load_recipe
    from espalier.core.refs import Ref
    from espalier.services.execution import execute_step
    from espalier.services.steps.train_sft import TrainSftSpec

    path = context.place(request.recipe)
    inputs = {"dataset": str(Ref.parse(request.dataset, kind="dataset"))}
    if request.prompt:
        inputs["prompt"] = str(Ref.parse(request.prompt, kind="prompt"))
    spec = load_recipe(path, TrainSftSpec)
    return execute_step(context, "train.sft", spec, name=path.stem, folder=path.parent, inputs=inputs)


class CreateBase(Spec):
    """Which recipe to follow."""

    recipe: str = Field(description="YAML file of a pipeline that ends in train.create, e.g. recipes/seedling.yaml")
    param: tuple[str, ...] = Field((), description="NAME=VALUE over the recipe's parameters; may be given again")


@operation("training.create", "POST /v1/training/create", shape="job", positional=("recipe",), role="admin")
def create(context: Context, request: CreateBase) -> Run:
    """Train a tokenizer and a small Llama-architecture model from scratch.

    Example:
        espalier create recipes/seedling.yaml
    """
    from espalier.pipeline.graph import load_pipeline
    from espalier.services.execution import execute_graph
    from espalier.services.pipelines import parse_parameters

    graph = load_pipeline(context.place(request.recipe))
    return execute_graph(context, graph, parse_parameters(request.param))
