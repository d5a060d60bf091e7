"""RTF through striprtf: its text, without formatting; the rows of its tables become Markdown tables.

Pictures and embedded objects are left out.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from espalier.core.errors import InvalidInput
from espalier.core.types import Document
from espalier.data.readers.plugin import versioned
from espalier.data.readers.source import SourceFile
from espalier.data.readers.tabletext import write_table

_CODEPAGE = re.compile(r"\\ansicpg(\d{3,5})")


@versioned(1)
def read_rtf(source: SourceFile) -> Iterator[Document]:
    """One document: the text of the file."""
    text = strip_rtf(source.read_bytes())
    if text.strip():
        yield Document(source.document_id(1), text, source.span(end=len(text)))


def strip_rtf(data: bytes) -> str:
    """Plain text of RTF bytes; raises InvalidInput when they are none."""
    from striprtf.striprtf import rtf_to_text

    if not data.lstrip()[:5] == b"{\\rtf":
        raise InvalidInput("not a readable RTF: it does not begin with {\\rtf")
    markup = data.decode("latin-1")
    codepage = _CODEPAGE.search(markup[:2_000])
    encoding = f"cp{codepage[1]}" if codepage else "cp1252"
    try:
        text: str = rtf_to_text(markup, encoding=encoding, errors="replace")
    except LookupError:
        text = rtf_to_text(markup, encoding="cp1252", errors="replace")
    return _shape(text.replace("\r\n", "\n"))


def _shape(text: str) -> str:
    """striprtf ends each cell with a bar: runs of such lines become tables."""
    parts: list[str] = []
    for is_row, lines in itertools.groupby(text.split("\n"), key=lambda line: line.rstrip().endswith("|")):
        if is_row:
            parts += ["", write_table([line.rstrip().removesuffix("|").split("|") for line in lines]), ""]
        else:
            parts += [line.rstrip() for line in lines]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).strip()
