"""One form for what looks the same: Unicode composition, spaces, line ends, invisible characters.

Changes no word. Page breaks (form feeds) are kept for the steps that look at pages.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from espalier.core.types import Document, Spec
from espalier.data.clean.outcome import Outcome, rewrite_each


class NormaliseSpec(Spec):
    """Unicode and white space into one form."""

    step: Literal["normalise"] = "normalise"
    form: Literal["NFC", "NFKC"] = Field(
        "NFC", description="NFKC also turns ligatures and full-width letters into plain ones"
    )
    plain_quotes: bool = Field(True, description="curly quotes, dashes and ellipses become ASCII")


_PLAIN = str.maketrans(
    {
        "‘": "'",
        "’": "'",
        "‚": "'",
        "“": '"',
        "”": '"',
        "„": '"',
        "–": "-",
        "—": "-",
        "‐": "-",
        "‑": "-",
        "−": "-",
        "…": "...",
    }
)
# Control characters but tab, newline and form feed; zero-width characters and the byte order mark.
_INVISIBLE = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\u200b-\u200f\u2060-\u2064\u202a-\u202e\u2066-\u2069\ufeff]")
_LINE_END = re.compile("\r\n?|[\u0085\u2028\u2029]")
_ODD_SPACE = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
# Indentation stays: it means something in lists, code and records.
_INNER_SPACES = re.compile(r"(?<=\S)[ \t]+(?=\S)")
_TRAILING_SPACES = re.compile("[ \t]+(?=[\n\f]|\\Z)")
_BLANK_LINES = re.compile("\n{3,}")


def normalise(documents: Sequence[Document], spec: NormaliseSpec) -> Outcome:
    """Apply `normalise_text` to every document."""
    return rewrite_each(documents, lambda text: normalise_text(text, spec))


def normalise_text(text: str, spec: NormaliseSpec) -> str:
    """Idempotent: normalising twice gives the same text."""
    text = unicodedata.normalize(spec.form, text)
    text = _INVISIBLE.sub("", _LINE_END.sub("\n", text))
    if spec.plain_quotes:
        text = text.translate(_PLAIN)
    text = _INNER_SPACES.sub(" ", _TRAILING_SPACES.sub("", _ODD_SPACE.sub(" ", text)))
    # Taking characters out can bring together what composes.
    return unicodedata.normalize(spec.form, _BLANK_LINES.sub("\n\n", text).strip(" \t\n"))
