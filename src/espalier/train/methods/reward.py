"""`reward`: a head that gives an answer a number, learnt from pairs of which one answer is better.

Bradley and Terry's model: the better one is preferred with probability sigmoid(its reward - the other's).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from espalier.train.method import Method, Prepared, Setting
from espalier.train.recipe import TrainSpec


class RewardSpec(TrainSpec):
    """Learn to give the better of two answers the higher reward."""

    epochs: int = Field(1, ge=1, description="passes over the main dataset; reward models overfit on a second")
    margin: float = Field(0.0, ge=0, description="what the better reward must lead by")
    margin_tag: str = Field("", description="a tag with each pair's own margin, in place of `margin`")
    centering: float = Field(
        0.0, ge=0, description="weight of (sum of both rewards)^2, which keeps rewards around 0; 0.01 is usual"
    )
    overlong: Literal["truncate", "refuse"] = Field(
        "truncate",
        description="a longer pair is left out and counted, or stops the run: a cut answer has no end to judge",
    )


def prepare(setting: Setting) -> Prepared:
    """One row for each answer, at its last token; what two answers begin with alike is computed once."""
    from espalier.nn.scorehead import draw_head
    from espalier.train.documents import lay_sources, lay_validation
    from espalier.train.heads.objectives import Preferring
    from espalier.train.heads.pairs import lay_rewards
    from espalier.train.heads.saving import make_finish

    spec, base = setting.spec, setting.base
    assert isinstance(spec, RewardSpec)
    finish = make_finish(setting)
    laying = lay_rewards(
        base.tokenizer, margin=spec.margin, margin_tag=spec.margin_tag, context_tokens=setting.context_tokens
    )
    documents = lay_sources(setting, laying)
    head = draw_head("reward", (), base.config, spec.seed, base.device)
    return Prepared(
        documents,
        Preferring(head, spec.centering),
        documents.audit,
        lay_validation(setting, laying),
        head=head,
        finish=lambda folder: finish(folder, head),
    )


METHOD = Method("reward", RewardSpec, "learn to reward the better of two answers", prepare)
