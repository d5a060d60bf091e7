"""Undoes hard line wrapping (PDF, mail), so that a phrase is not broken by a line end or a hyphen."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Literal

from pydantic import Field

from espalier.core.types import Spec
from espalier.data.clean.rewriting import FormatStep
from espalier.data.flow.step import CleanStep


class UnwrapSpec(Spec):
    """Join lines that were broken for the page's sake."""

    step: Literal["unwrap"] = "unwrap"
    formats: tuple[str, ...] = Field(("pdf", "eml", "txt"), description="formats with hard line ends")
    min_fill: float = Field(0.9, gt=0, le=1, description="how nearly full, against the longest line, a wrapped line is")
    min_width_chars: int = Field(40, ge=1, description="a document whose longest line is shorter is not wrapped")


_NEW_ITEM = re.compile(r"[-*•>#|]|\d{1,3}[.)] |[A-ZÄÖÜ#][\w/-]*( [\w/-]+){0,2}: ")
_SENTENCE_ENDS = (".", "!", "?", ":", '"', ")")
_SOFT_HYPHEN = "\u00ad"


def unwrap_text(text: str, spec: UnwrapSpec) -> str:
    """Join a line to the next when the next one's first word would not have fitted on it.

    Both must hold text, and the next may not begin a list item or a `name: value`.
    """
    lines = text.split("\n")
    width = max(map(len, lines))
    if width < spec.min_width_chars:
        return text.replace(_SOFT_HYPHEN, "")
    out = [lines[0]]
    for before, line in itertools.pairwise(lines):
        if out[-1].endswith(_SOFT_HYPHEN) and line[:1].isalpha():
            out[-1] = out[-1].removesuffix(_SOFT_HYPHEN) + line
        elif _wraps(before, line, spec.min_fill * width):
            out[-1] = _join(out[-1], line)
        else:
            out.append(line)
    return "\n".join(out).replace(_SOFT_HYPHEN, "")


def _wraps(before: str, line: str, full_chars: float) -> bool:
    first_word = line.split(maxsplit=1)[:1]
    if not first_word or not before.strip() or _NEW_ITEM.match(line):
        return False
    if before.endswith(_SENTENCE_ENDS) and not line.endswith(_SENTENCE_ENDS) and len(line) < full_chars / 2:
        return False  # a heading under a full paragraph
    return len(before) + 1 + len(first_word[0]) > full_chars


def _join(head: str, tail: str) -> str:
    # A hyphen in the text itself is kept: "follow-" + "up" is "follow-up".
    return f"{head}{tail}" if re.search(r"\w-$", head) and tail[:1].isalpha() else f"{head.rstrip()} {tail.lstrip()}"


def prepare(spec: UnwrapSpec, folder: Path) -> FormatStep:
    """Ready to run; names no file."""
    return FormatStep(spec.formats, lambda text: unwrap_text(text, spec))


STEP = CleanStep("unwrap", 2, UnwrapSpec, prepare)
