"""One PDF page as pdfium gives it -> words with boxes, in lines, and the ruled lines drawn on it.

Coordinates are points, the origin at the lower left of the page as a person holds it (its rotation is undone). Knows
pdfium; does not know tables, headings or text files.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

MAX_CHARS = 400_000
MAX_PATHS = 5_000
MAX_SEGMENTS = 64
APART = 0.45  # of a character's height: from here on a gap parts words
THIN = 2.5  # points: a filled box thinner than this is a line
_SOFT_HYPHEN = "\u00ad"
_ODD = "\ufffe"


@dataclass(frozen=True, slots=True)
class Word:
    """Characters without white space between them, and the box around them."""

    text: str
    left: float
    bottom: float
    right: float
    top: float

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
        chars = sum(len(word.text) for word in self.words)
        for word in sorted(self.words, key=lambda word: word.height):
            chars -= 2 * len(word.text)
            if chars <= 0:
                return word.height
        return self.words[-1].height

    @property
    def middle(self) -> float:
        return (self.bottom + self.top) / 2


@dataclass(frozen=True, slots=True)
class Rule:
    """A horizontal or vertical line: `at` is its y (or x), and it runs from `start` to `end`."""

    horizontal: bool
    at: float
    start: float
    end: float


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
        turn = _Turn.of(page)
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
                rules += _rules_of(each, turn)
        return Page(lines, join_rules(rules), pictures)
    finally:
        page.close()


def join_rules(rules: list[Rule]) -> list[Rule]:
    """Rules that continue each other as one: a grid is often drawn cell by cell."""
    joined: list[Rule] = []
    for horizontal in (True, False):
        level: list[Rule] = []
        for rule in sorted((each for each in rules if each.horizontal is horizontal), key=lambda each: each.at):
            if level and rule.at - level[0].at > THIN / 2:
                joined += _join_level(level)
                level = []
            level.append(rule)
        joined += _join_level(level)
    return joined


def _join_level(rules: list[Rule]) -> list[Rule]:
    joined: list[Rule] = []
    for rule in sorted(rules, key=lambda each: each.start):
        if joined and rule.start <= joined[-1].end + THIN:
            last = joined[-1]
            joined[-1] = Rule(last.horizontal, last.at, last.start, max(last.end, rule.end))
        else:
            joined.append(rule)
    return joined


@dataclass(frozen=True, slots=True)
class _Turn:
    """How a page is rotated, in quarter turns clockwise, and its size before that."""

    quarters: int
    width: float
    height: float

    @classmethod
    def of(cls, page: Any) -> _Turn:
        width, height = page.get_size()
        quarters = page.get_rotation() // 90 % 4
        return cls(quarters, *((height, width) if quarters % 2 else (width, height)))

    def box(self, left: float, bottom: float, right: float, top: float) -> tuple[float, float, float, float]:
        if self.quarters == 1:
            return bottom, self.width - right, top, self.width - left
        if self.quarters == 2:
            return self.width - right, self.height - top, self.width - left, self.height - bottom
        if self.quarters == 3:
            return self.height - top, left, self.height - bottom, right
        return left, bottom, right, top


def _read_lines(textpage: Any, turn: _Turn) -> list[Line]:
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
            builder.add(code, turn.box(box.left, box.bottom, box.right, box.top))
    builder.end_line()
    return builder.lines


@dataclass(slots=True)
class _Builder:
    """Characters into words into lines."""

    lines: list[Line] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    glyph: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    glyph_start: int = 0  # where in `codes` the characters of the last glyph begin

    def add(self, code: int, box: tuple[float, float, float, float]) -> None:
        height = box[3] - box[1]
        if self.codes and max(box[0] - self.box[2], self.box[0] - box[2]) > APART * height:
            # Set side by side without a space, or, after a soft hyphen, on the next line without a line end.
            fell = abs(box[1] + box[3] - self.box[1] - self.box[3]) > 1.2 * height
            self.end_line() if fell else self.end_word()
        if self.codes:
            mine = self.box
            self.box = (min(mine[0], box[0]), min(mine[1], box[1]), max(mine[2], box[2]), max(mine[3], box[3]))
        else:
            self.box = box
        if box == self.glyph and self.codes and 0x600 <= code < 0x700:
            self.codes.insert(self.glyph_start, code)  # pdfium turns a line round, and its ligatures with it
            return
        self.glyph, self.glyph_start = box, len(self.codes)
        self.codes.append(code)

    def end_word(self) -> None:
        if self.codes:
            self.words.append(Word(_decode(self.codes), *self.box))
            self.codes = []

    def end_line(self) -> None:
        self.end_word()
        if self.words:
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
    return stem.replace(_ODD, "") or "•"  # a glyph of a font of signs: mostly a bullet


def _write(code: int) -> str:
    odd = code < 32 or code == 0xFFFE or 0xE000 <= code < 0xF900 or code >= 0x110000
    return _ODD if odd else chr(code)


def _rules_of(path: Any, turn: _Turn) -> list[Rule]:
    import pypdfium2.raw as raw

    segments = raw.FPDFPath_CountSegments(path.raw)
    if segments < 2 or segments > MAX_SEGMENTS:
        return []
    if segments > 6:
        return _rules_of_segments(path, turn, segments)
    left, bottom, right, top = turn.box(*path.get_bounds())
    width, height = right - left, top - bottom
    if height <= THIN and width > 2 * THIN:
        return [Rule(True, (bottom + top) / 2, left, right)]
    if width <= THIN and height > 2 * THIN:
        return [Rule(False, (left + right) / 2, bottom, top)]
    if width <= THIN or height <= THIN or segments < 4:
        return []
    edges = [Rule(True, at, left, right) for at in (bottom, top)]
    return edges + [Rule(False, at, bottom, top) for at in (left, right)]


def _rules_of_segments(path: Any, turn: _Turn, segments: int) -> list[Rule]:
    """The straight lines of a path that draws many at once, such as a whole grid."""
    import pypdfium2.raw as raw

    matrix = path.get_matrix()
    x, y = ctypes.c_float(), ctypes.c_float()
    rules: list[Rule] = []
    before: tuple[float, float] | None = None
    for index in range(segments):
        segment = raw.FPDFPath_GetPathSegment(path.raw, index)
        raw.FPDFPathSegment_GetPoint(segment, ctypes.byref(x), ctypes.byref(y))
        there_x, there_y = matrix.on_point(x.value, y.value)
        there = turn.box(there_x, there_y, there_x, there_y)[:2]
        if raw.FPDFPathSegment_GetType(segment) == raw.FPDF_SEGMENT_LINETO and before is not None:
            (from_x, from_y), (to_x, to_y) = before, there
            if abs(from_y - to_y) < 1 and abs(from_x - to_x) > 2 * THIN:
                rules.append(Rule(True, to_y, min(from_x, to_x), max(from_x, to_x)))
            elif abs(from_x - to_x) < 1 and abs(from_y - to_y) > 2 * THIN:
                rules.append(Rule(False, to_x, min(from_y, to_y), max(from_y, to_y)))
        before = there
    return rules
