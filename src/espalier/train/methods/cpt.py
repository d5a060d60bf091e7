"""`cpt`: continued pre-training, on every token of raw text or of a conversation rendered whole."""

from __future__ import annotations

from espalier.train.method import Method, Prepared, Setting
from espalier.train.recipe import CptSpec


def prepare(setting: Setting) -> Prepared:
    """Every token but a document's first carries loss."""
    from espalier.train.documents import lay_sources, lay_validation
    from espalier.train.laying import every_token
    from espalier.train.objective import Likelihood

    laying = every_token(setting.base.tokenizer, context_tokens=setting.context_tokens, overlong=setting.spec.overlong)
    documents = lay_sources(setting, laying)
    return Prepared(documents, Likelihood(), documents.audit, lay_validation(setting, laying))


METHOD = Method("cpt", CptSpec, "go on pre-training on raw text", prepare)
