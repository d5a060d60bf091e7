"""Generation: models and prompts brought to the data stage, which knows neither endpoints nor templates."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from espalier.core.events import Emit, ignore
from espalier.core.operations import operation
from espalier.core.types import Example, Prompt, Run, Spec

if TYPE_CHECKING:
    from espalier.core.ports import Generate
    from espalier.core.types import Generation, Message, SamplingSpec
    from espalier.data.generate.asking import Spending
    from espalier.data.generate.row import Row
    from espalier.data.generate.spec import GenerateSpec, ModelSpec
    from espalier.data.generate.templates import PromptVersion, Template
    from espalier.services.context import Context


class GenerateDataset(Spec):
    """Which recipe, from which data, with which prompts."""

    recipe: str = Field(description="YAML file: model, method, judge, budget ... (see `config schema generate`)")
    dataset: str = Field(description="dataset:NAME@vN, or just NAME for its newest version")
    prompt: str = Field("", description="prompt:NAME@vN in place of the one that is shipped for the method")
    judge_prompt: str = Field("", description="prompt:NAME@vN in place of the one that is shipped for judging")


@operation("datasets.generate", "POST /v1/datasets/generate", shape="job", positional=("recipe",), role="admin")
def generate(context: Context, request: GenerateDataset) -> Run:
    """Have a model make examples from those of a dataset: questions, instructions, paraphrases, or only a judgement.

    Every answer is kept as it comes: a killed run asks nothing twice. Every row names its parents, prompt and model;
    what was refused stands in exclusions with its reason.

    Example:
        espalier data generate questions.yaml --dataset handbook
    """
    from espalier.core.recipefile import load_recipe
    from espalier.core.refs import Ref
    from espalier.data.generate.spec import GenerateSpec
    from espalier.services.execution import execute_step

    path = context.place(request.recipe)
    inputs = {"dataset": str(Ref.parse(request.dataset, kind="dataset"))}
    for port in ("prompt", "judge_prompt"):
        if ref := getattr(request, port):
            inputs[port] = str(Ref.parse(ref, kind="prompt"))
    spec = load_recipe(path, GenerateSpec)
    return execute_step(context, "data.generate", spec, name=spec.name, folder=path.parent, inputs=inputs)


@dataclass(frozen=True, slots=True)
class Generated:
    """Rows kept and refused, every raw answer by its sha256, and what it took."""

    rows: list[Row]
    answers: dict[str, Generation]
    spending: Spending


def generate_from(
    examples: Sequence[Example],
    spec: GenerateSpec,
    journal: Path,
    *,
    prompt: Prompt | None = None,
    judge_prompt: Prompt | None = None,
    emit: Emit = ignore,
) -> Generated:
    """Open the models a spec names, ask through `prompt` and `judge_prompt` (else the shipped ones), and close them.

    Answers go to `journal` as they come, and are found there again. Raises what asking raises, InvalidInput when no
    row was kept.
    """
    from espalier.data.generate.asking import Asker, Spending
    from espalier.data.generate.generate import Seat, generate_rows
    from espalier.data.generate.templates import CRITIQUE, METHODS
    from espalier.store.journal import Journal

    spending, kept = Spending(spec.budget), Journal(journal)
    judge_model = spec.judge and (spec.judge.model or spec.model)
    with ExitStack() as stack:
        models = {model.subject: model for model in _models_asked(spec)}
        askers = {
            subject: Asker(stack.enter_context(open_generate(model)), model, journal=kept, spending=spending, emit=emit)
            for subject, model in models.items()
        }
        judge = Seat(askers[judge_model.subject], prepare_prompt(CRITIQUE, judge_prompt)) if judge_model else None
        if spec.method.kind in METHODS:
            writer = Seat(askers[spec.model.subject], prepare_prompt(METHODS[spec.method.kind], prompt))
            rows = generate_rows(examples, spec, writer, judge, emit)
        elif judge is not None:
            rows = generate_rows(examples, spec, judge, judge, emit)
    answers = {digest: answer for asker in askers.values() for digest, answer in asker.answers.items()}
    return Generated(rows, answers, spending)


@contextmanager
def open_generate(model: ModelSpec) -> Iterator[Generate]:
    """What answers for a model of a recipe: an endpoint, or a base loaded here."""
    if model.endpoint:
        from espalier.services.endpoints import open_endpoint

        with open_endpoint(model) as endpoint:
            yield endpoint
        return
    from espalier.services.answering import open_model

    with open_model(model.base, batch=model.concurrency) as generate:
        yield functools.partial(_answer_what_fits, generate)


def _answer_what_fits(
    generate: Generate, batch: Sequence[Sequence[Message]], sampling: SamplingSpec
) -> list[Generation]:
    """A batch's answers; where one question is too long for the base, that one is refused and the others are not."""
    from espalier.core.errors import InvalidInput
    from espalier.core.types import Generation, Usage

    try:
        return generate(batch, sampling)
    except InvalidInput as error:
        if len(batch) == 1:
            nothing = Usage(prompt_tokens=0, completion_tokens=0)
            return [Generation(text=error.message, finish_reason="error", usage=nothing)]
        return [_answer_what_fits(generate, [question], sampling)[0] for question in batch]


def prepare_prompt(shipped: Template, own: Prompt | None = None) -> PromptVersion:
    """A prompt ready to ask with: a version of the catalogue, or the one that is shipped."""
    from espalier.data.generate.templates import PromptVersion
    from espalier.prompts.template import make_prompt, render

    prompt = own or make_prompt(shipped.name, shipped.template, shipped.system, source=shipped.name)
    version = prompt.version if own else shipped.version
    return PromptVersion(prompt.name, version, prompt.digest, functools.partial(render, prompt))


def _models_asked(spec: GenerateSpec) -> list[ModelSpec]:
    writer = [] if spec.method.kind == "critique" and spec.judge and spec.judge.model else [spec.model]
    return [*writer, *([spec.judge.model] if spec.judge and spec.judge.model else [])]
