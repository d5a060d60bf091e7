"""Which lines of a PDF are headings: those set larger than most of the text, and bold ones that stand by themselves.

Sizes are line heights in half points; weights are 400 for normal and 700 for bold type, or what a font tells of itself.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from espalier.data.readers.pdfpage import Line, Page

MAX_LEVELS = 4
HEADING_RATIO = 1.14
BOLD_RATIO = 1.25
MIN_BODY_CHARS = 400
MAX_HEADING_SHARE = 0.2
MAX_CHARS = 160
MAX_BOLD_CHARS = 100
_NUMBERED = re.compile(r"(\d{1,2}(?:\.\d{1,2}){0,4})\.?\s+\S")
_LETTERS = re.compile(r"[^\W\d_]{2}")


@dataclass(frozen=True, slots=True)
class Headings:
    """What tells a heading in one document."""

    levels: dict[int, int] = field(default_factory=dict)  # line height in half points -> level
    bold_from: float = float("inf")  # weight
    body: int = 0  # height of most of the text, in half points

    def level_of(self, line: Line, *, apart: bool) -> int:
        """From 1, or 0 for what is no heading. `apart`: more than a line's distance from the line above."""
        text = line.text
        if not _LETTERS.search(text):
            return 0
        level = self.levels.get(half_points(line.height), 0)
        if level:
            return level if len(text) <= MAX_CHARS else 0
        bold = line.weight >= self.bold_from and half_points(line.height) >= self.body
        if not bold or not apart or len(text) > MAX_BOLD_CHARS or text.rstrip()[-1] in ".,;:":
            return 0
        numbered = _NUMBERED.match(text)
        deepest = max(self.levels.values(), default=0) + 1
        return max(deepest, numbered[1].count(".") + 1) if numbered else deepest


def find_headings(pages: Sequence[Page]) -> Headings:
    """Judged over the whole document; a short one has none."""
    sizes: Counter[int] = Counter()
    weights: Counter[float] = Counter()
    for page in pages:
        for line in page.lines:
            chars = len(line.text)
            sizes[half_points(line.height)] += chars
            weights[line.weight] += chars
    if sizes.total() < MIN_BODY_CHARS:
        return Headings()
    body = max(sizes, key=lambda height: (sizes[height], -height))
    usual = max(weights, key=lambda weight: (weights[weight], -weight))
    heavy = sum(chars for weight, chars in weights.items() if weight >= BOLD_RATIO * usual)
    rare = heavy <= MAX_HEADING_SHARE * sizes.total()
    return Headings(_levels(sizes, body), BOLD_RATIO * usual if rare else float("inf"), body)


def half_points(height: float) -> int:
    """A height as a whole number of half points: what differs by less is one size of type."""
    return round(height * 2)


def _levels(sizes: Counter[int], body: int) -> dict[int, int]:
    levels: dict[int, int] = {}
    level = taken = 0
    before = None
    for height in sorted((height for height in sizes if height > HEADING_RATIO * body), reverse=True):
        taken += sizes[height]
        if taken > MAX_HEADING_SHARE * sizes.total():
            break  # so much text is no heading, however large
        level += before is None or before - height > 1
        levels[height] = min(level, MAX_LEVELS)
        before = height
    return levels
