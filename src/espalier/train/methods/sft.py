"""`sft`: supervised fine-tuning on the assistant's turns of a dataset."""

from __future__ import annotations

from espalier.train.method import Method, Prepared, Setting
from espalier.train.recipe import SftSpec


def prepare(setting: Setting) -> Prepared:
    """Every assistant turn carries loss, each token the same, or by its message's weight."""
    from espalier.train.documents import lay_sources, lay_validation
    from espalier.train.laying import answers
    from espalier.train.objective import Likelihood

    laying = answers(setting.base.tokenizer, context_tokens=setting.context_tokens, overlong=setting.spec.overlong)
    documents = lay_sources(setting, laying)
    return Prepared(documents, Likelihood(), documents.audit, lay_validation(setting, laying))


METHOD = Method("sft", SftSpec, "fine-tune on the assistant's turns", prepare)
