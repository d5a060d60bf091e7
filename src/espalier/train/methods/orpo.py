"""`orpo`: fine-tuning on the better answer and away from the worse at once, without a reference. arXiv:2403.07691."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from espalier.train.method import Method, Prepared, Setting
from espalier.train.recipe import TrainSpec


class OrpoSpec(TrainSpec):
    """Learn the better of two answers, and not the worse."""

    beta: float = Field(0.1, gt=0, description="weight of the odds ratio against the better answer's likelihood")
    prompt_nll: bool = Field(False, description="learn the prompt's tokens, too, as TRL does and the paper does not")
    lr: float = Field(2e-3, gt=0, description="peak rate, half of fine-tuning's; 8e-6 for models of billions")
    overlong: Literal["truncate", "refuse"] = Field(
        "truncate", description="the answers of a longer pair lose their ends, or it stops the run"
    )


def prepare(setting: Setting) -> Prepared:
    """Two sequences for each pair behind one prompt; a third where the prompt is learnt."""
    from espalier.train.documents import lay_sources, lay_validation
    from espalier.train.preference.objectives import Orpo
    from espalier.train.preference.pairs import pairs

    spec = setting.spec
    assert isinstance(spec, OrpoSpec)
    laying = pairs(setting.base.tokenizer, context_tokens=setting.context_tokens, prompt_nll=spec.prompt_nll)
    documents = lay_sources(setting, laying)
    objective = Orpo(spec.beta, spec.prompt_nll)
    return Prepared(documents, objective, documents.audit, lay_validation(setting, laying))


METHOD = Method("orpo", OrpoSpec, "learn the better of two answers and not the worse, without a reference", prepare)
