"""Training: tune a model on a dataset version by any method, or make a base from scratch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from espalier.core.operations import operation
from espalier.core.types import Run, Spec
from espalier.services.tuning import TuneModel, list_inputs, read_training

if TYPE_CHECKING:
    from espalier.services.context import Context


@operation("training.tune", "POST /v1/training/tune", shape="job", positional=("recipe",), role="admin")
def tune(context: Context, request: TuneModel) -> Run:
    """Train by the recipe's method: sft, cpt, dpo, orpo, kto, classify, reward, distill or grpo.

    Before the first step the mask audit says how much of the data is learnt from, and stops a run that would learn
    nothing. A killed training goes on from its checkpoint and ends in the same bytes (grpo: near them).

    Example:
        espalier train recipe.yaml --dataset support --prompt support-dossier
    """
    from espalier.services.execution import execute_step

    method, spec, path = read_training(context, request.recipe, request.param)
    inputs = list_inputs(context, request)
    return execute_step(context, f"train.{method}", spec, name=path.stem, folder=path.parent, inputs=inputs)


class SearchTraining(Spec):
    """Which search, on which data."""

    search: str = Field(description="YAML file of a search: recipe, space, trials ... (`config schema search`)")
    dataset: str = Field(description="dataset:NAME@vN, or just NAME for its newest version")
    prompt: str = Field("", description="prompt:NAME@vN; empty = the questions as the dataset holds them")
    adapter: str = Field("", description="model:NAME@vN to go on from; empty = the recipe's base as it is")
    mix: tuple[str, ...] = Field((), description="NAME=DATASET for each name in the recipe's `mix`; may be given again")
    param: tuple[str, ...] = Field((), description="FIELD=VALUE over the recipe, in every trial; may be given again")


@operation("training.search", "POST /v1/training/search", shape="job", positional=("search",), role="admin")
def search(context: Context, request: SearchTraining) -> Run:
    """Search for better fields of a training recipe; poor trials are pruned, and each is an ordinary run.

    A search that was stopped goes on where it stood; asked again with more trials, it adds the rest.

    Example:
        espalier train search search.yaml --dataset support
    """
    from espalier.core.recipefile import load_recipe
    from espalier.services.search import run_search
    from espalier.train.search import SearchSpec

    path = context.place(request.search)
    spec = load_recipe(path, SearchSpec)
    recipe = path.parent / spec.recipe
    tuned = TuneModel(recipe=str(recipe), **request.model_dump(exclude={"search"}))
    return run_search(context, spec, tuned, recipe.parent)


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
