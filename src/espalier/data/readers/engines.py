"""Other people's readers, chosen by name in a recipe (`source.readers: {pdf: docling}`), each an optional package.

docling (MIT) lays pages out with models of its own: slower by far, better on difficult layouts; its models must be on
the machine, since nothing is fetched. kreuzberg (MIT) knows many formats ours do not. Neither is imported before a file
is read by it.
"""

from __future__ import annotations

import io
import mimetypes
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from espalier.core.errors import InvalidInput, MissingExtra
from espalier.core.types import Document
from espalier.data.readers.paged import join_pages
from espalier.data.readers.plugin import versioned
from espalier.data.readers.source import SourceFile

_READ = ("success", "partial_success")


@versioned(1)
def read_with_docling(source: SourceFile) -> Iterator[Document]:
    """One document of docling's Markdown, a page for each page. Raises MissingExtra without `espalier[docling]`."""
    try:
        from docling.datamodel.base_models import DocumentStream
        from docling.document_converter import DocumentConverter
    except ImportError:
        raise MissingExtra("reading with docling needs its package", hint='pip install "espalier[docling]"') from None
    stream = DocumentStream(name=PurePosixPath(source.uri).name, stream=io.BytesIO(source.read_bytes()))
    result = DocumentConverter().convert(stream, raises_on_error=False)
    status = str(getattr(result.status, "value", result.status))
    if status not in _READ:
        raise InvalidInput(f"docling could not read it: {_errors(result) or status}")
    document = result.document
    pages = sorted(document.pages)
    if len(pages) > 1:
        texts = ["" for _ in range(max(pages))]
        for page in pages:
            texts[page - 1] = document.export_to_markdown(page_no=page)
    else:
        texts = [document.export_to_markdown()]
    tags = {"reader": "docling"} | ({"docling.status": status} if status != "success" else {})
    yield from join_pages(source, texts, tags)


@versioned(1)
def read_with_kreuzberg(source: SourceFile) -> Iterator[Document]:
    """One document of kreuzberg's Markdown. Raises MissingExtra without `espalier[kreuzberg]`."""
    try:
        import kreuzberg
    except ImportError:
        raise MissingExtra(
            "reading with kreuzberg needs its package", hint='pip install "espalier[kreuzberg]"'
        ) from None
    data = source.read_bytes()
    kind = mimetypes.guess_type(source.uri)[0] or kreuzberg.detect_mime_type(data)
    config = kreuzberg.ExtractionConfig(output_format="markdown", use_cache=False)
    text = kreuzberg.extract_bytes_sync(data, kind, config).content
    yield from join_pages(source, [text], {"reader": "kreuzberg"})


def _errors(result: Any) -> str:
    return "; ".join(str(getattr(error, "error_message", error)) for error in result.errors)[:300]
