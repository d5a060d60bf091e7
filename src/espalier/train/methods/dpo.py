"""`dpo`: direct preference optimisation, from pairs of answers of which one is better. arXiv:2305.18290.

The reference is the policy as it stands before the first step: its log-probabilities are computed once and kept, so no
second model is held while training.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from espalier.train.method import Method, Prepared, Setting
from espalier.train.preference.names import DpoLoss
from espalier.train.recipe import TrainSpec

_SMOOTHED = ("sigmoid", "sigmoid_norm", "robust", "exo_pair")


class DpoSpec(TrainSpec):
    """Learn which of two answers is better."""

    loss: DpoLoss = Field(
        "sigmoid",
        description="as TRL names them; sigmoid_norm compares means per token; docs/preference.md has them all",
    )
    beta: float = Field(0.1, gt=0, description="how dear it is to leave the reference; the DPO paper's 0.1")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="share of pairs thought to be the wrong way round; for sigmoid, robust, exo_pair"
    )
    rpo_alpha: float = Field(
        0.0, ge=0, description="weight of the better answers' own likelihood, so that it does not sink (RPO); 0 = none"
    )
    reference: str = Field(
        "", description="another model as the reference (builtin:NAME, path:DIR, hf:OWNER/NAME); empty = as it starts"
    )
    epochs: int = Field(1, ge=1, description="passes over the main dataset; pairs are soon learnt by heart")
    lr: float = Field(5e-4, gt=0, description="peak rate, an eighth of fine-tuning's; 5e-6 for models of billions")
    overlong: Literal["truncate", "refuse"] = Field(
        "truncate", description="the answers of a longer pair lose their ends, or it stops the run"
    )

    @model_validator(mode="after")
    def _check_smoothing(self) -> Self:
        if self.label_smoothing and self.loss not in _SMOOTHED:
            raise ValueError(f"label_smoothing: loss {self.loss} knows none; {', '.join(_SMOOTHED)} do")
        if self.loss == "exo_pair" and not self.label_smoothing:
            raise ValueError("label_smoothing: loss exo_pair needs some, as 0.001")
        return self


def prepare(setting: Setting) -> Prepared:
    """Two sequences for each pair behind one prompt, and what the reference says of them."""
    from espalier.train.documents import lay_sources, lay_validation
    from espalier.train.preference.objectives import Dpo
    from espalier.train.preference.pairs import pairs
    from espalier.train.preference.reference import open_reference

    spec = setting.spec
    assert isinstance(spec, DpoSpec)
    laying = pairs(setting.base.tokenizer, context_tokens=setting.context_tokens)
    documents, validation = lay_sources(setting, laying), lay_validation(setting, laying)
    reference = open_reference(setting, spec.reference)
    return Prepared(
        reference.judge(documents),
        Dpo(spec.loss, spec.beta, spec.label_smoothing, spec.rpo_alpha),
        documents.audit,
        reference.judge_strips(validation),
        identity={"reference": reference.key["weights"]},
    )


def list_files(spec: TrainSpec, folder: Path) -> Iterable[Path]:
    """The files of another model as reference."""
    from espalier.nn.locate import anchor_base, list_base_files

    named = getattr(spec, "reference", "")
    return list_base_files(anchor_base(named, folder)) if named else []


METHOD = Method("dpo", DpoSpec, "learn which of two answers is better", prepare, list_files)
