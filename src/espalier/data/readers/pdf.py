"""PDF through its text layer (pypdfium2). One file is one document; a page break stands in its text as a form feed.

Does not know scans: a file without a text layer is refused with that reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from espalier.core.errors import InvalidInput
from espalier.core.types import Document
from espalier.data.readers.source import SourceFile

PAGE_BREAK = "\n\f\n"
MAX_PAGES = 5_000


def read_pdf(source: SourceFile) -> Iterator[Document]:
    """The pages with text, joined; `spans` holds one Span for each of them."""
    pages = [(number, text) for number, text in enumerate(_page_texts(source), 1) if text.strip()]
    if not pages:
        raise InvalidInput("no text layer on any page (a scan?)", hint="run OCR on it first")
    spans = tuple(source.span(number, 0, len(text)) for number, text in pages)
    joined = PAGE_BREAK.join(text for _, text in pages)
    tags = {"pdf.pages": str(len(pages))}
    yield Document(source.document_id(1), joined, spans[0], tags, continued=spans[1:])


def _page_texts(source: SourceFile) -> list[str]:
    import pypdfium2

    try:
        with pypdfium2.PdfDocument(source.path) as pdf:
            if len(pdf) > MAX_PAGES:
                raise InvalidInput(f"{len(pdf)} pages, more than {MAX_PAGES}", hint="split the file")
            return [_page_text(pdf, index) for index in range(len(pdf))]
    except pypdfium2.PdfiumError as error:
        raise InvalidInput(f"not a readable PDF: {error}") from None


def _page_text(pdf: Any, index: int) -> str:
    page = pdf[index]
    try:
        textpage = page.get_textpage()
        try:
            text: str = textpage.get_text_range()
        finally:
            textpage.close()
    finally:
        page.close()
    # pdfium marks a hyphen it believes to be soft, at the end of a line, as U+FFFE.
    return text.replace("\r\n", "\n").replace("\ufffe", "\u00ad")
