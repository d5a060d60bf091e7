"""What a rule is, what it finds, and the words around a number that say what it is.

Texts are UTF-8 bytes, positions are byte offsets. A NUL byte ends a context: windows of many texts stand in one buffer
with NULs between them (`windows.gather`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

# How far before and after a finding its context may stand, in bytes. `windows` keeps as much around every trigger.
REACH_BEFORE_BYTES = 48
REACH_AFTER_BYTES = 16


class Finding(NamedTuple):
    """One stretch of a text that is personal data or a secret."""

    start: int
    end: int
    kind: str  # the word put in its place
    rule: str  # which rule found it: "email", "pl.pesel" ...


def byte_offsets(text: str) -> Callable[[int], int]:
    """A function from character offsets of the text to byte offsets; the identity for ASCII."""
    return int if text.isascii() else lambda offset: len(text[:offset].encode())


Extent = tuple[int, int]
Check = Callable[[bytes, int, int], Extent | None]
Judge = Callable[[bytes, int, int], Finding | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """What to look for and how to judge it.

    pattern: RE2 syntax over bytes read as UTF-8, no capturing groups.
    first: a character class (`0-9+`) that every match begins with.
    judge: the finding, which may be shorter than the match, or None.
    opening: a pattern that every match begins with, and cheaper to look for; the pattern itself when empty.
    name: of the rule, where it has one for all its findings.
    longest_bytes: of a match. Without a limit, a text of half-matches would cost its square.
    """

    kinds: tuple[str, ...]
    pattern: str
    first: str
    judge: Judge
    opening: str = ""
    name: str = ""
    longest_bytes: int = 1024


def rule(
    kind: str, name: str, first: str, pattern: str, check: Check, opening: str = "", *, longest_bytes: int = 1024
) -> Rule:
    """A rule whose findings are all of one kind."""

    def judge(text: bytes, start: int, end: int) -> Finding | None:
        extent = check(text, start, end)
        return Finding(*extent, kind, name) if extent else None

    return Rule((kind,), pattern, first, judge, opening, name, longest_bytes)


def any_case(word: str) -> str:
    """The word's letters in either case, ASCII alone (`(?i)` would take the Kelvin sign for a k)."""
    return "".join(f"[{char.upper()}{char.lower()}]" if char.isalpha() else char for char in word)


def accept(text: bytes, start: int, end: int) -> Extent | None:
    """For patterns that no chance text matches."""
    return start, end


def words(*alternatives: str) -> re.Pattern[bytes]:
    """A pattern for context words in any case; they begin where a word begins."""
    return re.compile(rf"(?i)(?<![a-z0-9])(?:{'|'.join(alternatives)})".encode())


def before(text: bytes, start: int, reach_bytes: int = REACH_BEFORE_BYTES) -> bytes:
    """What stands before a finding, as far as context reaches."""
    context = text[max(0, start - reach_bytes) : start]
    return context[context.rfind(b"\0") + 1 :]


def after(text: bytes, end: int, reach_bytes: int = REACH_AFTER_BYTES) -> bytes:
    """What stands after a finding, as far as context reaches."""
    return text[end : end + reach_bytes].split(b"\0", 1)[0]


def named(text: bytes, start: int, context: re.Pattern[bytes]) -> bool:
    """True when one of the context words stands before `start`."""
    return context.search(before(text, start)) is not None
