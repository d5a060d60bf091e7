"""Which characters a one-character pattern matches, asked of the regex engine that Hugging Face's tokenizers uses.

The engine's Unicode version and its case folding are its own (`(?i:s)` also matches U+017F), so its answer is taken
instead of a table of ours: the patterns compiled here agree with it on every code point, whichever version is
installed. Knows nothing of pre-tokenizers or of what the sets are used for.
"""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, pre_tokenizers

CODE_POINTS = 0x110000
Charset = npt.NDArray[np.bool_]  # (CODE_POINTS,); surrogates, which no text holds, are left out of every set

_EVERYTHING = np.concatenate([np.arange(0xD800), np.arange(0xE000, CODE_POINTS)])
_IN_CATEGORIES = re.compile(
    r"\\[pP]\{\^?(?:[A-Z][a-z]?|Han)\}|\\[sSdDrnt]|\\[^\w]"
)  # what is the same all over a block
# Blocks assigned as a whole to one general category, or to none: for what is said in categories their first code point
# speaks for the rest, which makes asking eight times faster. The tests ask about every code point.
_UNIFORM = (
    (0x3400, 0x4DB5),  # CJK extension A
    (0x4E00, 0x9FD5),  # CJK unified
    (0xAC00, 0xD7A3),  # Hangul syllables
    (0xE000, 0xF8FF),  # private use
    (0x17000, 0x187EC),  # Tangut
    (0x20000, 0x2A6D6),  # CJK extension B
    (0x40000, 0xDFFFD),  # planes without characters
    (0xE0200, 0xEFFFD),
    (0xF0000, 0xFFFFD),  # private use
    (0x100000, 0x10FFFD),
)


@cache
def charset(pattern: str) -> Charset:
    """The characters that the regular expression `pattern`, which matches one character at a time, matches."""
    in_categories = not re.search(r"\\|[^\0-\x7f]", _IN_CATEGORIES.sub("", pattern))
    return _ask(pre_tokenizers.Split(Regex(f"(?:{pattern})+"), "removed"), _asked() if in_categories else _EVERYTHING)


@cache
def folded_charset(pattern: str) -> Charset:
    """`charset` of an ASCII literal or bracket under `(?i:...)`, asked only of what case folding can bring to ASCII."""
    splitter = pre_tokenizers.Split(Regex(f"(?i:{pattern})"), "removed")
    found = np.zeros(CODE_POINTS, np.bool_)
    for character in _foldable():
        found[ord(character)] = not splitter.pre_tokenize_str(character)
    return found


@cache
def kind_charset(kind: str) -> Charset:
    """What the pre-tokenizer `Digits` or `Punctuation` cuts at, by their own Unicode tables."""
    cutter = pre_tokenizers.Digits() if kind == "Digits" else pre_tokenizers.Punctuation("contiguous")
    points = _asked()
    found = np.zeros(CODE_POINTS, np.bool_)
    text = "a" + "".join(f"{chr(point)}a" for point in points.tolist())
    for _, (start, end) in cutter.pre_tokenize_str(text):
        if start % 2 and end == start + 1:  # cut off from the letters on both sides
            found[points[start // 2]] = True
    return _spread(found)


def _ask(splitter: pre_tokenizers.PreTokenizer, points: npt.NDArray[np.int64]) -> Charset:
    matched = np.ones(len(points), np.bool_)
    for _, (start, end) in splitter.pre_tokenize_str("".join(map(chr, points.tolist()))):
        matched[start:end] = False
    found = np.zeros(CODE_POINTS, np.bool_)
    found[points] = matched
    return _spread(found) if len(points) < len(_EVERYTHING) else found


def _spread(found: Charset) -> Charset:
    for first, last in _UNIFORM:
        found[first : last + 1] = found[first]
    found.flags.writeable = False
    return found


@cache
def _asked() -> npt.NDArray[np.int64]:
    asked = np.ones(CODE_POINTS, np.bool_)
    asked[0xD800:0xE000] = False
    for first, last in _UNIFORM:
        asked[first + 1 : last + 1] = False
    return np.flatnonzero(asked)


@cache
def _foldable() -> tuple[str, ...]:
    """ASCII, and every character one of whose case forms is an ASCII letter."""
    return tuple(
        character
        for character in map(chr, [*range(0xD800), *range(0xE000, 0x20000)])
        if character < "\x80" or {character.casefold(), character.lower(), character.upper()} & _ASCII
    )


_ASCII = frozenset(map(chr, range(128)))
