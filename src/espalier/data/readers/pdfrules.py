"""The straight lines drawn on a PDF page, and the turn that a rotated page needs.

Coordinates are points, the origin at the lower left of the page as a person holds it. Knows pdfium's paths; does not
know what the lines are for.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

THIN = 2.5  # points: a filled box thinner than this is a line
MAX_SEGMENTS = 64


@dataclass(frozen=True, slots=True)
class Rule:
    """A horizontal or vertical line: `at` is its y (or x), and it runs from `start` to `end`."""

    horizontal: bool
    at: float
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Turn:
    """How a page is rotated, in quarter turns clockwise, and its size before that."""

    quarters: int
    width: float
    height: float

    @classmethod
    def of(cls, page: Any) -> Turn:
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


def rules_of(path: Any, turn: Turn) -> list[Rule]:
    """The straight lines of one path object: a line, the edges of a box, or the parts of a grid drawn at once."""
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


def _rules_of_segments(path: Any, turn: Turn, segments: int) -> list[Rule]:
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
