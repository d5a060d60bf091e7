"""Takes from a mail what is not its message: the quoted mails under it and the signature at its end.

Knows the marks that mail programs leave. Does not know names: what it leaves of them is left to redaction.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field

from espalier.core.types import Spec
from espalier.data.clean.rewriting import FormatStep
from espalier.data.flow.step import CleanStep


class RepliesSpec(Spec):
    """Cut quoted replies and signatures."""

    step: Literal["replies"] = "replies"
    formats: tuple[str, ...] = Field(("eml",), description="formats whose documents are mails; quotes are cut in these")
    signature_lines: int = Field(8, ge=0, description="a signature has at most so many lines; 0 keeps signatures")


_SEPARATOR = re.compile(r"-{2,} ?(original message|forwarded message|ursprüngliche nachricht) ?-{2,}", re.IGNORECASE)
_ATTRIBUTION = re.compile(r"(on|am|le) .{4,200}(wrote|schrieb.{0,80}|a écrit) ?:", re.IGNORECASE | re.DOTALL)
_HEADER = re.compile(r"(from|von|de): .+", re.IGNORECASE)
_HEADER_NEXT = re.compile(r"(sent|date|to|gesendet|datum|an|cc|subject|betreff): .*", re.IGNORECASE)
_CLOSING = re.compile(
    r"((with )?(kind|best|warm|many)(est)? (regards|wishes|thanks)|regards|cheers|(yours )?(sincerely|faithfully|truly)"
    r"|thanks( and regards)?|thank you|mit freundlichen gr(ü|ue)(ß|ss)en|viele gr(ü|ue)(ß|ss)e)[,.!]?",
    re.IGNORECASE,
)
_DEVICE = re.compile(r"(sent|gesendet) (from|von) my .{2,40}|get outlook for .{2,20}", re.IGNORECASE)
_SUBJECT = re.compile(r"\ASubject: [^\n]*\n*")


def cut_quotes(text: str) -> str:
    """Everything from the mark of a quoted mail on goes, and so do lines that start with `>`.

    Of a plain forward, which is nothing but a quoted mail, the quote is the message: only its mark and headers go.
    """
    lines = text.split("\n")
    mark = next((index for index in range(len(lines)) if _starts_quote(lines, index)), None)
    if mark is not None:
        head = lines[:mark]
        lines = head if _has_message("\n".join(head)) else [*head, *_strip_headers(lines[mark:])]
    result = "\n".join(line for line in lines if not line.startswith(">")).strip()
    return result if _has_message(result) else text


def cut_signature(text: str, max_lines: int) -> str:
    """Cut at the last `-- ` line, or at a closing ("Kind regards,") near the end, or at "Sent from my ..."."""
    if not max_lines:
        return text
    lines = text.rstrip().split("\n")
    for index in range(max(1, len(lines) - max_lines - 1), len(lines)):
        line = lines[index].strip()
        if line == "--" or _CLOSING.fullmatch(line) or _DEVICE.fullmatch(line):
            cut = "\n".join(lines[:index]).rstrip()
            return cut if _has_message(cut) else text
    return text


def _starts_quote(lines: list[str], index: int) -> bool:
    line = lines[index].strip()
    if _SEPARATOR.fullmatch(line):
        return True
    following = lines[index + 1].strip() if index + 1 < len(lines) else ""
    if _HEADER.fullmatch(line) and _HEADER_NEXT.fullmatch(following):
        return True
    # Mail programs wrap the attribution line.
    return bool(_ATTRIBUTION.fullmatch(line) or (line and following and _ATTRIBUTION.fullmatch(f"{line} {following}")))


def _strip_headers(lines: list[str]) -> list[str]:
    start = 0
    while start < len(lines) and (_is_mark(lines[start].strip()) or not lines[start].strip()):
        start += 1
    return lines[start:]


def _is_mark(line: str) -> bool:
    return any(pattern.fullmatch(line) for pattern in (_SEPARATOR, _ATTRIBUTION, _HEADER, _HEADER_NEXT))


def _has_message(text: str) -> bool:
    return bool(re.search(r"\w", _SUBJECT.sub("", text)))


def prepare(spec: RepliesSpec, folder: Path) -> FormatStep:
    """Ready to run; names no file."""
    return FormatStep(spec.formats, lambda text: cut_signature(cut_quotes(text), spec.signature_lines))


STEP = CleanStep("replies", 2, RepliesSpec, prepare)
