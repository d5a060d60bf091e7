"""`classify`: a head that gives a text one of n labels; beside an adapter, on a frozen base, or with all learning.

Transfer learning: the head reads the hidden state of the question's last token, as transformers' sequence classifiers
do, and what is written loads there.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from espalier.train.method import Method, Prepared, Setting
from espalier.train.recipe import TrainSpec


class ClassifySpec(TrainSpec):
    """Learn to give a text its label."""

    epochs: int = Field(3, ge=1, description="passes over the main dataset")
    label: str = Field("label", description="the tag with the label; an example without it is labelled by its answer")
    labels: tuple[str, ...] = Field((), description="the labels in the order of the outputs; empty = sorted, as found")
    balance: bool = Field(False, description="weigh labels by 1 / how often they are, their mean weight being 1")
    label_weights: dict[str, float] = Field({}, description="loss weight of some labels, times that of `balance`")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all labels")
    overlong: Literal["truncate", "refuse"] = Field(
        "truncate", description="a longer text loses its end, or stops the run"
    )

    @model_validator(mode="after")
    def _check_labels(self) -> ClassifySpec:
        if len(set(self.labels)) < len(self.labels) or len(self.labels) == 1:
            raise ValueError("labels: two or more, each once")
        if any(weight < 0 for weight in self.label_weights.values()):
            raise ValueError("label_weights: none below 0")
        return self


def prepare(setting: Setting) -> Prepared:
    """One row for each text; the labels' order stands in what is written. Raises InvalidInput for fewer than two."""
    import torch

    from espalier.nn.scorehead import draw_head
    from espalier.train.documents import lay_sources, lay_validation
    from espalier.train.heads.labels import count_labels, lay_label, order_labels, weigh_labels
    from espalier.train.heads.objectives import Labelling
    from espalier.train.heads.saving import make_finish

    spec, base = setting.spec, setting.base
    assert isinstance(spec, ClassifySpec)
    finish = make_finish(setting)  # says first what cannot be written
    counts = count_labels([source.folder for source in setting.sources], spec.label)
    labels = order_labels(counts, spec.labels)
    weights = weigh_labels(labels, counts, balance=spec.balance, given=spec.label_weights)
    laying = lay_label(base.tokenizer, spec.label, labels, weights, context_tokens=setting.context_tokens)
    documents = lay_sources(setting, laying)
    head = draw_head("classify", labels, base.config, spec.seed, base.device)
    return Prepared(
        documents,
        Labelling(head, torch.tensor(weights), spec.label_smoothing),
        documents.audit,
        lay_validation(setting, laying),
        head=head,
        finish=lambda folder: finish(folder, head),
    )


METHOD = Method("classify", ClassifySpec, "learn to give a text one of n labels", prepare)
