"""Markdown and plain text, in whatever encoding. Knows bytes and characters only."""

from __future__ import annotations

import codecs
from collections.abc import Iterator

from espalier.core.errors import InvalidInput
from espalier.core.types import Document
from espalier.data.readers.plugin import versioned
from espalier.data.readers.source import SourceFile

# UTF-32's mark begins with UTF-16's, so it is looked for first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@versioned(1, trusted=True)
def read_text(source: SourceFile) -> Iterator[Document]:
    """One document: the whole file."""
    text = decode(source.read_bytes())
    if text.strip():
        yield Document(source.document_id(1), text, source.span(end=len(text)))


def decode(data: bytes) -> str:
    """Text by its byte order mark, else UTF-8, else the encoding charset-normalizer finds most likely.

    Raises InvalidInput for bytes that are no text in any encoding.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _decode_as(data, encoding)
    if b"\x00" in data:
        raise InvalidInput("binary bytes, not text", hint="convert it to UTF-8")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return _guess(data)


def _decode_as(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"marked as {encoding} but is not: {error.reason} at byte {error.start}") from None


def _guess(data: bytes) -> str:
    from charset_normalizer import from_bytes

    best = from_bytes(data).best()
    if best is None:
        raise InvalidInput("text in no known encoding", hint="convert it to UTF-8")
    return str(best)
