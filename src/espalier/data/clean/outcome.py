"""What every cleaning step returns, and the two things a step may do to a document: rewrite it or drop it.

A step never changes the documents it was given, never reorders them and never leaves one out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from espalier.core.types import Document


@dataclass(slots=True)
class Outcome:
    """As many documents as went in, in the same order; `counts` is what the step wants to report."""

    documents: list[Document]
    counts: dict[str, int] = field(default_factory=dict)


def rewrite_each(documents: Sequence[Document], rewrite: Callable[[str], str]) -> Outcome:
    """Apply a text function to every kept document; counts the `changed` ones."""
    out = [
        document if document.dropped_because else with_text(document, rewrite(document.text)) for document in documents
    ]
    return Outcome(out, {"changed": sum(old is not new for old, new in zip(documents, out, strict=True))})


def with_text(document: Document, text: str) -> Document:
    """The document with another text; the same object when the text is the same."""
    return document if text == document.text else replace(document, text=text)


def drop(document: Document, reason: str) -> Document:
    """The document marked as dropped."""
    return replace(document, dropped_because=reason)
