"""Raw text for continued pretraining: each document is an example as it is."""

from __future__ import annotations

from typing import Literal

from espalier.core.types import Document, Example, Spec


class TextTask(Spec):
    """Learn to continue the documents themselves."""

    kind: Literal["text"] = "text"


def make_example(document: Document) -> Example:
    """The document's text, unlabelled."""
    return Example(f"ex_{document.id}", text=document.text, documents=[document.id], tags=dict(document.tags))
