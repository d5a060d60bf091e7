"""PDF through its text layer (pypdfium2), laid out again: headings by their size, tables as tables, words that a line
end has parted joined. One file is one document; a page break stands in its text as a form feed.

A page without a text layer is read by tesseract where the machine has it. Form fields and annotations are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from espalier.core.errors import InvalidInput
from espalier.core.types import Document
from espalier.data.readers import ocr
from espalier.data.readers.paged import join_pages
from espalier.data.readers.pdfheadings import find_headings
from espalier.data.readers.pdflayout import write_page
from espalier.data.readers.pdfpage import Page, read_page
from espalier.data.readers.plugin import versioned
from espalier.data.readers.source import SourceFile

MAX_PAGES = 5_000
JUDGED_PAGES = 100  # by which headings are told; the layout of further pages is never held together


@versioned(3, leans_on=ocr.describe_tesseract)
def read_pdf(source: SourceFile) -> Iterator[Document]:
    """The pages with text, joined; `spans` holds one Span for each of them."""
    texts, tags = _read(source)
    documents = join_pages(source, texts, tags)
    for document in documents:
        document.tags["pdf.pages"] = str(len(document.spans))
    if not documents:
        raise _no_text(len(texts))
    yield from documents


def _read(source: SourceFile) -> tuple[list[str], dict[str, str]]:
    import pypdfium2

    try:
        with pypdfium2.PdfDocument(source.read_bytes()) as pdf:
            if len(pdf) > MAX_PAGES:
                raise InvalidInput(f"{len(pdf)} pages, more than {MAX_PAGES}", hint="split the file")
            first = [_read_page(pdf, index) for index in range(min(len(pdf), JUDGED_PAGES))]
            headings = find_headings([page for page in first if page])
            texts: list[str] = []
            scans, broken = [], 0
            for index in range(len(pdf)):
                page = first[index] if index < len(first) else _read_page(pdf, index)
                texts.append(write_page(page, headings) if page else "")
                broken += page is None
                if page and page.has_picture and not re.search(r"\w", texts[-1]):
                    scans.append(index)
            if texts and broken == len(texts):
                raise InvalidInput("not a readable PDF: none of its pages can be loaded")
            tags = {"pdf.broken_pages": str(broken)} if broken else {}
            return texts, tags | _title(pdf) | _read_scans(pdf, texts, scans)
    except pypdfium2.PdfiumError as error:
        if "assword" in str(error):
            raise InvalidInput("encrypted: it needs a password", hint="save it without a password") from None
        raise InvalidInput(f"not a readable PDF: {error}") from None


def _read_page(pdf: Any, index: int) -> Page | None:
    """A page; None when it cannot be loaded, which says nothing of the others."""
    import pypdfium2

    try:
        return read_page(pdf, index)
    except pypdfium2.PdfiumError:
        return None


def _read_scans(pdf: Any, texts: list[str], scans: list[int]) -> dict[str, str]:
    """Fill in the text of pages that are pictures (by index), as far as that can be done; how far, as tags.

    Raises InvalidInput when one cannot be read and no page has any text.
    """
    scanned = 0
    refusal: InvalidInput | None = None
    for index in scans[: ocr.MAX_PAGES] if ocr.find_tesseract() else ():
        try:
            texts[index] = ocr.recognise(*ocr.render(pdf, index))
            scanned += 1
        except InvalidInput as error:
            refusal = refusal or error
    if refusal and not any(text.strip() for text in texts):
        raise refusal
    counts = {"pdf.scanned_pages": scanned, "pdf.unread_pages": len(scans) - scanned}
    return {name: str(count) for name, count in counts.items() if count}


def _title(pdf: Any) -> dict[str, str]:
    title = " ".join(str(pdf.get_metadata_dict().get("Title") or "").split())[:200]
    return {"title": title} if title else {}


def _no_text(pages: int) -> InvalidInput:
    if not pages:
        return InvalidInput("a PDF without pages")
    if ocr.find_tesseract():
        return InvalidInput("no text layer on any page, and tesseract found no text either")
    return InvalidInput(
        "no text layer on any page (a scan?), and there is no tesseract on this machine",
        hint="install tesseract-ocr, or run OCR on the file first",
    )
