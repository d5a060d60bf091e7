"""One form for what looks the same: Unicode composition, spaces, line ends, invisible characters.

Changes no word. Page breaks (form feeds) are kept for the steps that look at pages. `normalise_text` is what it means;
the kernel does the same to whole columns, and hands back the rows whose characters may compose with their neighbours.

Legend: n = rows, C = code points.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from espalier.core.types import Spec
from espalier.data.clean.rewriting import TextStep
from espalier.data.flow.step import CleanStep
from espalier.data.kernels.buffers import Bytes, fill, is_worth_compiling, make_texts, view_texts


class NormaliseSpec(Spec):
    """Unicode and white space into one form."""

    step: Literal["normalise"] = "normalise"
    form: Literal["NFC", "NFKC"] = Field(
        "NFC", description="NFKC also turns ligatures and full-width letters into plain ones"
    )
    plain_quotes: bool = Field(True, description="curly quotes, dashes and ellipses become ASCII")
    messages: bool = Field(False, description="also the messages of conversations, and the answers of an extraction")


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


def normalise_text(text: str, spec: NormaliseSpec) -> str:
    """Idempotent: normalising twice gives the same text."""
    text = unicodedata.normalize(spec.form, text)
    text = _INVISIBLE.sub("", _LINE_END.sub("\n", text))
    if spec.plain_quotes:
        text = text.translate(_PLAIN)
    text = _INNER_SPACES.sub(" ", _TRAILING_SPACES.sub("", _ODD_SPACE.sub(" ", text)))
    # Taking characters out can bring together what composes.
    return unicodedata.normalize(spec.form, _BLANK_LINES.sub("\n\n", text).strip(" \t\n"))


def normalise_texts(texts: pa.LargeStringArray, spec: NormaliseSpec) -> pa.LargeStringArray:
    """`normalise_text` of each row (n,): compiled where the column is large, in plain Python where it is small."""
    if not is_worth_compiling(texts):
        return pa.array((normalise_text(text, spec) for text in texts.to_pylist()), pa.large_string())
    from espalier.data.kernels.whitespace import normalise_rows

    data, offsets = view_texts(texts)
    out = np.empty(offsets[-1] - offsets[0], np.uint8)
    ends = np.zeros(len(offsets), np.int64)
    hard = np.zeros(len(texts), np.uint8)
    written = normalise_rows(data, offsets, list_actions(spec.form, spec.plain_quotes), out, ends, hard)
    easy = make_texts(out[:written], ends)
    if not hard.any():
        return easy
    mask = hard.astype(np.bool_)
    return fill(easy, mask, [normalise_text(text, spec) for text in texts.filter(pa.array(mask)).to_pylist()])


@functools.cache
def list_actions(form: Literal["NFC", "NFKC"], plain_quotes: bool) -> Bytes:
    """What the kernel does with each code point below 0x20000. (C,)

    HARD are those that normalising changes, that combine, or that may compose with the one before: marks and the
    vowels and finals of Hangul (https://www.unicode.org/reports/tr15/, NFC_Quick_Check).
    """
    from espalier.data.kernels import whitespace as kernel

    alphabet = "".join("?" if 0xD800 <= code < 0xE000 else chr(code) for code in range(0x20000))
    actions = np.full(len(alphabet), kernel.COPY, np.uint8)
    hard = [
        code
        for code, character in enumerate(alphabet)
        if not unicodedata.is_normalized(form, character) or unicodedata.category(character)[0] == "M"
    ]
    actions[hard] = kernel.HARD
    actions[0x1100:0x1200] = actions[0xD7B0:0xD800] = kernel.HARD
    easy = actions == kernel.COPY
    classes = [(_INVISIBLE, kernel.DROP), (_LINE_END, kernel.LINE_END), (_ODD_SPACE, kernel.BLANK)]
    for pattern, action in classes:
        for match in pattern.finditer(alphabet):
            if easy[match.start()]:
                actions[match.start()] = action
    for character, action in [(" ", kernel.BLANK), ("\t", kernel.BLANK), ("\n", kernel.LINE_END)]:
        actions[ord(character)] = action
    actions[ord("\r")], actions[ord("\f")] = kernel.CARRIAGE_RETURN, kernel.PAGE_END
    written = {"'": kernel.SINGLE, '"': kernel.DOUBLE, "-": kernel.DASH, "...": kernel.ELLIPSIS}
    for code, plain in _PLAIN.items() if plain_quotes else ():
        if easy[code]:
            actions[code] = written[plain]
    return actions


def prepare(spec: NormaliseSpec, folder: Path) -> TextStep:
    """Ready to run; names no file."""
    texts = functools.partial(normalise_texts, spec=spec)
    return TextStep(texts, texts if spec.messages else None)


STEP = CleanStep("normalise", 2, NormaliseSpec, prepare)
