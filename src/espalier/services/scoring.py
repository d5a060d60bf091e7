"""Scoring: ask a trained head for labels, or for what answers are worth. Done in this process, without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from pydantic import Field

from espalier.core.operations import operation
from espalier.core.types import Message, Spec
from espalier.core.types.examples import Role

if TYPE_CHECKING:
    from espalier.nn.scoring import Scorer
    from espalier.services.context import Context


class ClassifyTexts(Spec):
    """Which head, and the texts as it was trained on them."""

    model: str = Field(description="model:NAME@vN, or the id of the run that trained it")
    texts: tuple[str, ...] = Field(min_length=1, description="texts to label")
    prompt: str = Field("", description="prompt:NAME@vN to ask through, as in training; empty = the texts as they are")


class LabelView(Spec):
    """A text's label, how likely it is, and every label's probability."""

    text: str
    label: str
    probability: float
    probabilities: dict[str, float]


@operation("models.classify", "POST /v1/registry/models/classify", positional=("model", "texts"))
def classify(context: Context, request: ClassifyTexts) -> list[LabelView]:
    """Label texts by a head that `method: classify` trained.

    Example:
        espalier models classify support-intents@v1 "my card was swallowed" "what is my balance?"
    """
    from espalier.services.prompts import RenderPrompt, render

    def ask(text: str) -> list[Message]:
        if not request.prompt:
            return [Message("user", text)]
        rendered = render(context, RenderPrompt(ref=request.prompt, input=text)).messages
        return [Message(cast(Role, turn.role), turn.content) for turn in rendered]

    found = _open(context, request.model).classify([ask(text) for text in request.texts])
    return [
        LabelView(text=text, label=one.label, probability=one.probabilities[one.label], probabilities=one.probabilities)
        for text, one in zip(request.texts, found, strict=True)
    ]


class RewardAnswers(Spec):
    """Which head, the question, and the answers to judge."""

    model: str = Field(description="model:NAME@vN, or the id of the run that trained it")
    question: str = Field(description="what was asked")
    answers: tuple[str, ...] = Field(min_length=1, description="answers to it")


class RewardView(Spec):
    """An answer and its reward; rewards compare answers to one question, and have no unit."""

    answer: str
    reward: float


@operation("models.reward", "POST /v1/registry/models/reward", positional=("model", "question", "answers"))
def reward(context: Context, request: RewardAnswers) -> list[RewardView]:
    """Say what answers to a question are worth, by a head that `method: reward` trained; the best first.

    Example:
        espalier models reward support-judge@v1 "Where is my parcel?" "It arrives tomorrow." "No idea."
    """
    asked = Message("user", request.question)
    rewards = _open(context, request.model).reward([[asked, Message("assistant", one)] for one in request.answers])
    views = [RewardView(answer=one, reward=value) for one, value in zip(request.answers, rewards, strict=True)]
    return sorted(views, key=lambda view: -view.reward)


def _open(context: Context, model: str) -> Scorer:
    """The head of a registered version, or of a run that trained one. Raises NotFound."""
    from espalier.core.errors import NotFound
    from espalier.nn.base import load_base
    from espalier.nn.locate import anchor_base
    from espalier.nn.scoring import open_scorer
    from espalier.registry.versions import get_version
    from espalier.services.bases import place_base

    store = context.store
    if not model.startswith("run_"):
        version = get_version(store, model)
        base = load_base(place_base(store, version.base))
        return open_scorer(base, store.artifacts.materialise(version.adapter) if version.adapter else base.path)
    outputs = {port.rsplit(".", 1)[-1]: digest for port, digest in store.runs.get(model).outputs.items()}
    if "base" in outputs:  # tuned in full: the head stands in the model itself
        folder = store.artifacts.materialise(outputs["base"])
        return open_scorer(load_base(f"path:{folder}"), folder)
    if "adapter" not in outputs:
        raise NotFound(f"{model} made no adapter", hint="name the run of a train.classify or train.reward step")
    named = store.artifacts.get(outputs["adapter"]).meta.get("base", "")
    anchored = anchor_base(named, context.workspace.root)  # a recipe's paths start at its folder, mostly this one
    return open_scorer(load_base(place_base(store, anchored)), store.artifacts.materialise(outputs["adapter"]))
