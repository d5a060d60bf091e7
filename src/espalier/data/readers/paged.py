"""A document of several pages (or slides, sheets, chapters): joined by form feeds, with a span for each page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from espalier.core.types import Document
from espalier.data.readers.source import SourceFile

PAGE_BREAK = "\n\f\n"


def join_pages(source: SourceFile, texts: Sequence[str], tags: Mapping[str, str]) -> list[Document]:
    """One document of the pages with text, its spans naming pages from 1; none when no page has any."""
    pages = [(number, text) for number, text in enumerate(texts, 1) if text.strip()]
    if not pages:
        return []
    spans = tuple(source.span(number, 0, len(text)) for number, text in pages)
    text = PAGE_BREAK.join(text for _, text in pages)
    return [Document(source.document_id(1), text, spans[0], dict(tags), continued=spans[1:])]
