"""Drops documents that are too short or too long to learn from. Knows characters and words, not tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from espalier.core.types import Document, Spec
from espalier.data.clean.outcome import Outcome, drop


class LengthSpec(Spec):
    """Drop by length."""

    step: Literal["length"] = "length"
    min_chars: int = Field(20, ge=0, description="fewest characters")
    max_chars: int = Field(200_000, ge=1, description="most characters")
    min_words: int = Field(3, ge=0, description="fewest words (parted by white space)")


def check_length(documents: Sequence[Document], spec: LengthSpec) -> Outcome:
    """Drop with "too short: ..." or "too long: ..."."""
    return Outcome([_check(document, spec) for document in documents])


def _check(document: Document, spec: LengthSpec) -> Document:
    if document.dropped_because:
        return document
    chars, words = len(document.text), len(document.text.split())
    if chars < spec.min_chars:
        return drop(document, f"too short: {chars} characters, min_chars is {spec.min_chars}")
    if words < spec.min_words:
        return drop(document, f"too short: {words} words, min_words is {spec.min_words}")
    if chars > spec.max_chars:
        return drop(document, f"too long: {chars} characters, max_chars is {spec.max_chars}")
    return document
