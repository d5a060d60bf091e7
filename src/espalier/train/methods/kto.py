"""`kto`: learning from single answers that are called good or bad, without pairs. arXiv:2402.01306."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from espalier.core.events import Event
from espalier.train.method import Method, Prepared, Setting
from espalier.train.methods.dpo import list_files
from espalier.train.preference.names import KtoLoss
from espalier.train.recipe import TrainSpec


class KtoSpec(TrainSpec):
    """Learn from answers with a verdict (tag `desirable`: true or false); a pair is one of each."""

    loss: KtoLoss = Field("kto", description="as TRL names them; apo_zero_unpaired needs no reference point")
    beta: float = Field(0.1, gt=0, description="how dear it is to leave the reference; the KTO paper's 0.1")
    desirable_weight: float = Field(
        1.0, gt=0, description="weight of a good answer; weights times numbers should stand at 1:1 to 4:3 (eq. 8)"
    )
    undesirable_weight: float = Field(1.0, gt=0, description="weight of a bad answer")
    reference: str = Field(
        "", description="another model as the reference (builtin:NAME, path:DIR, hf:OWNER/NAME); empty = as it starts"
    )
    lr: float = Field(5e-4, gt=0, description="peak rate, an eighth of fine-tuning's; 5e-6 for models of billions")
    overlong: Literal["truncate", "refuse"] = Field(
        "truncate", description="a longer answer loses its end, or stops the run"
    )


def prepare(setting: Setting) -> Prepared:
    """Every judged answer, one to another prompt beside it, and what the reference says of both."""
    from espalier.train.documents import lay_sources, lay_validation
    from espalier.train.plan import Strips
    from espalier.train.preference.mismatch import Mismatched
    from espalier.train.preference.objectives import Kto
    from espalier.train.preference.pairs import verdicts
    from espalier.train.preference.reference import open_reference

    spec, context_tokens = setting.spec, setting.context_tokens
    assert isinstance(spec, KtoSpec)
    laying = verdicts(setting.base.tokenizer, context_tokens=context_tokens)
    documents, validation = lay_sources(setting, laying), lay_validation(setting, laying)
    reference = open_reference(setting, spec.reference)
    objective = Kto(spec.loss, spec.beta, spec.desirable_weight, spec.undesirable_weight)
    identity = {"reference": reference.key["weights"]}
    if spec.loss != "kto":  # no reference point, no foreign answers
        watched = reference.judge_strips(validation)
        return Prepared(reference.judge(documents), objective, documents.audit, watched, identity=identity)
    learnt, looked_at = Mismatched(documents, context_tokens), Mismatched(Strips(validation), context_tokens)
    if warning := find_imbalance(spec, learnt.desirable, learnt.undesirable):
        setting.emit(Event("log", {"level": "warning", "message": warning}))
    watched = reference.judge_strips([looked_at.strip(number) for number in range(len(looked_at))])
    return Prepared(reference.judge(learnt), objective, documents.audit, watched, identity=identity)


def find_imbalance(spec: KtoSpec, desirable: int, undesirable: int) -> str:
    """What to change where good and bad answers, by number and weight, stand far from 1:1 to 4:3 (eq. 8); or empty."""
    good, bad = spec.desirable_weight * desirable, spec.undesirable_weight * undesirable
    if bad and 0.99 <= good / bad <= 1.34:
        return ""
    if not (desirable and undesirable):
        return (
            f"all {desirable + undesirable} answers are called {'good' if desirable else 'bad'}: KTO learns from both"
        )
    wanted = (
        f"undesirable_weight: {good / undesirable:.3g}" if good > bad else f"desirable_weight: {bad / desirable:.3g}"
    )
    return f"{desirable} good answers and {undesirable} bad ones: KTO's authors would set {wanted}"


METHOD = Method("kto", KtoSpec, "learn from answers called good or bad", prepare, list_files)
