"""One PDF page as pdfium gives it -> words with boxes, in lines, and the ruled lines drawn on it.

Coordinates are points, the origin at the lower left of the page as a person holds it (its rotation is undone). Knows
pdfium; does not know tables, headings or text files.
"""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass, field
from typing import Any

from espalier.data.readers.pdfrules import Rule, Turn, join_rules, rules_of

MAX_CHARS = 400_000
MAX_PATHS = 5_000
APART = 0.45  # of a character's height: from here on a gap parts words
_SOFT_HYPHEN = "\u00ad"
_ODD = "\ufffe"
_BULLET = "•"
_BOLD = re.compile(rb"bold|black|heavy|demi|-medi|(?:cm|ec|lm|sf)bx", re.IGNORECASE)
NORMAL, BOLD = 400, 700


@dataclass(frozen=True, slots=True)
class Word:
    """Characters without white space between them, and the box around them."""

    text: str
    left: float
    bottom: float
    right: float
    top: float
    weight: int = 400  # of its first character's font; 400 is normal, 700 bold

    @property
    def height(self) -> float:
        return self.top - self.bottom

    @property
    def middle(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.bottom + self.top) / 2


@dataclass(slots=True)
class Line:
    """Words that stand side by side, in the order they are read."""

    words: list[Word]

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)

    @property
    def left(self) -> float:
        return min(word.left for word in self.words)

    @property
    def right(self) -> float:
        return max(word.right for word in self.words)

    @property
    def bottom(self) -> float:
        return min(word.bottom for word in self.words)

    @property
    def top(self) -> float:
        return max(word.top for word in self.words)

    @property
    def height(self) -> float:
        """Of most of its characters: a line's size of type, whatever stands raised on it."""
        return _usual([(word.height, len(word.text)) for word in self.words])

    @property
    def weight(self) -> float:
        """The weight of most of its characters."""
        return _usual([(word.weight, len(word.text)) for word in self.words])

    @property
    def middle(self) -> float:
        return (self.bottom + self.top) / 2


def _usual(values: list[tuple[float, int]]) -> float:
    """The median of values that count so often each."""
    half = sum(count for _, count in values) / 2
    for value, count in sorted(values):
        half -= count
        if half <= 0:
            return value
    return values[-1][0]


@dataclass(slots=True)
class Page:
    """What was found on a page."""

    lines: list[Line] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    has_picture: bool = False

    @property
    def chars(self) -> int:
        return sum(len(word.text) for line in self.lines for word in line.words)


def read_page(pdf: Any, index: int) -> Page:
    """Page `index` (from 0) of a pypdfium2 document."""
    import pypdfium2.raw as raw

    page = pdf[index]
    try:
        turn = Turn.of(page)
        textpage = page.get_textpage()
        try:
            lines = _read_lines(textpage, turn)
        finally:
            textpage.close()
        kinds = [raw.FPDF_PAGEOBJ_PATH, raw.FPDF_PAGEOBJ_IMAGE, raw.FPDF_PAGEOBJ_FORM]
        rules: list[Rule] = []
        pictures = False
        for number, each in enumerate(page.get_objects(filter=kinds, max_depth=1)):
            if number >= MAX_PATHS:  # a drawing, not a table
                rules = []
                break
            pictures = pictures or each.type != raw.FPDF_PAGEOBJ_PATH
            if each.type == raw.FPDF_PAGEOBJ_PATH:
                rules += rules_of(each, turn)
        return Page(lines, join_rules(rules), pictures)
    finally:
        page.close()


def _read_lines(textpage: Any, turn: Turn) -> list[Line]:
    import pypdfium2.raw as raw

    handle, box = textpage.raw, raw.FS_RECTF()
    pointer, unicode_of, box_of = ctypes.byref(box), raw.FPDFText_GetUnicode, raw.FPDFText_GetLooseCharBox
    builder = _Builder()
    for index in range(min(textpage.count_chars(), MAX_CHARS)):
        code = unicode_of(handle, index)
        if code in (10, 13):
            builder.end_line()
        elif code in (9, 32, 0xA0) or code == 0:
            builder.end_word()
        else:
            box_of(handle, index, pointer)
            if builder.add(code, turn.box(box.left, box.bottom, box.right, box.top)):
                builder.weight = _weight_of(handle, index)
    builder.end_word()
    builder.flush()
    return builder.lines


def _weight_of(handle: Any, index: int) -> int:
    """The weight of a character's font: as its name says, where that is clear, for many fonts do not tell it."""
    import pypdfium2.raw as raw

    name = ctypes.create_string_buffer(64)
    raw.FPDFText_GetFontInfo(handle, index, name, 64, None)
    if _BOLD.search(name.value):
        return BOLD
    weight: int = raw.FPDFText_GetFontWeight(handle, index)
    return weight if weight > 0 else NORMAL


@dataclass(slots=True)
class _Builder:
    """Characters into words into lines."""

    lines: list[Line] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    glyph: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    weight: int = 0
    ended: bool = False
    glyph_start: int = 0  # where in `codes` the characters of the last glyph begin

    def add(self, code: int, box: tuple[float, float, float, float]) -> bool:
        """Take in a character; whether it begins a word."""
        height = box[3] - box[1]
        if self.ended:
            self.ended = False
            if self.words and not self.goes_on(code, box, 0.3 * height):
                self.flush()
        if self.codes and max(box[0] - self.box[2], self.box[0] - box[2]) > APART * height:
            # Set side by side without a space, or, after a soft hyphen, on the next line without a line end.
            fell = abs(box[1] + box[3] - self.box[1] - self.box[3]) > 1.2 * height
            self.end_word()
            if fell:
                self.flush()
        if self.codes:
            mine = self.box
            self.box = (min(mine[0], box[0]), min(mine[1], box[1]), max(mine[2], box[2]), max(mine[3], box[3]))
        else:
            self.box = box
        if box == self.glyph and self.codes and 0x600 <= code < 0x700:
            self.codes.insert(self.glyph_start, code)  # pdfium turns a line round, and its ligatures with it
            return False
        self.glyph, self.glyph_start = box, len(self.codes)
        self.codes.append(code)
        return len(self.codes) == 1

    def end_word(self) -> None:
        if self.codes:
            self.words.append(Word(_decode(self.codes), *self.box, self.weight))
            self.codes = []

    def end_line(self) -> None:
        self.end_word()
        self.ended = True

    def goes_on(self, code: int, box: tuple[float, float, float, float], slack: float) -> bool:
        """Whether a character that pdfium puts on a new line stands beside the old one: the next cell of a table."""
        last = self.words[-1]
        level = abs(last.bottom + last.top - box[1] - box[3]) < 2 * slack
        beside = box[2] <= last.left + slack if 0x590 <= code < 0x900 else box[0] >= last.right - slack
        return level and beside

    def flush(self) -> None:
        if any(word.text != _BULLET for word in self.words):  # signs alone are a drawing's
            self.lines.append(Line(self.words))
        self.words = []


def _decode(codes: list[int]) -> str:
    text = "".join(map(_write, codes))
    if any(0xD800 <= code < 0xE000 for code in codes):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    # pdfium marks a hyphen it believes to be soft, at the end of a line, as U+FFFE (or as the control character 2).
    stem = text.rstrip(_ODD)
    if stem and stem != text:
        return stem.replace(_ODD, "") + _SOFT_HYPHEN
    return stem.replace(_ODD, "") or _BULLET  # a glyph of a font of signs: mostly a bullet


def _write(code: int) -> str:
    odd = code < 32 or code == 0xFFFE or 0xE000 <= code < 0xF900 or code >= 0x110000
    return _ODD if odd else chr(code)
