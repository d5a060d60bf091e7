"""What Word's styles and numbering say of a paragraph: is it a heading, a list item, code, and which number it bears.

After ECMA-376 part 1, sections 17.7 (styles) and 17.9 (numbering).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from espalier.data.readers.container import attribute, child, local_name

_CODE = re.compile(r"\bcode\b|preformatted|macro text|listing|verbatim", re.IGNORECASE)
_HEADING = re.compile(r"heading ([1-9])$", re.IGNORECASE)
_ROMAN = ((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x"))
_ROMAN_SMALL = ((9, "ix"), (5, "v"), (4, "iv"), (1, "i"))
MAX_CHAIN = 16


@dataclass(frozen=True, slots=True)
class Style:
    """One paragraph style; numbers are None where it says nothing."""

    name: str = ""
    based_on: str = ""
    outline: int | None = None
    num_id: str | None = None
    num_level: int | None = None


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a numbering: `text` is its pattern, such as `%1.%2`."""

    kind: str = "decimal"
    text: str = ""
    start: int = 1


@dataclass(slots=True)
class Styles:
    """The styles of a document by id."""

    by_id: dict[str, Style] = field(default_factory=dict)

    def chain(self, style_id: str) -> list[Style]:
        """The style and what it is based on, nearest first."""
        found: list[Style] = []
        while style_id in self.by_id and len(found) < MAX_CHAIN:
            found.append(self.by_id[style_id])
            style_id = found[-1].based_on
        return found

    def heading_level(self, style_id: str) -> int | None:
        """From 1; None for what is no heading."""
        for style in self.chain(style_id):
            if match := _HEADING.search(style.name):
                return int(match[1])
            if style.name.lower() == "title":
                return 1
            if style.outline is not None and style.outline < 9:
                return style.outline + 1
        return None

    def is_code(self, style_id: str) -> bool:
        """Whether the style is meant for program text."""
        return any(_CODE.search(style.name) for style in self.chain(style_id))

    def numbering(self, style_id: str) -> tuple[str, int] | None:
        """(numbering id, level) that the style gives its paragraphs."""
        chain = self.chain(style_id)
        num_id = next((style.num_id for style in chain if style.num_id is not None), None)
        level = next((style.num_level for style in chain if style.num_level is not None), 0)
        return None if num_id is None else (num_id, level)


@dataclass(slots=True)
class Numbering:
    """The numberings of a document, and how far each has counted."""

    levels: dict[str, dict[int, Level]] = field(default_factory=dict)  # abstract id -> level -> Level
    abstract: dict[str, str] = field(default_factory=dict)  # numbering id -> abstract id
    restarts: dict[str, dict[int, int]] = field(default_factory=dict)  # numbering id -> level -> start
    counts: dict[str, dict[int, int]] = field(default_factory=dict)  # abstract id -> level -> last number
    seen: set[str] = field(default_factory=set)

    def level(self, num_id: str, depth: int) -> Level | None:
        """What a level of a numbering looks like; None for an unknown one."""
        return self.levels.get(self.abstract.get(num_id, ""), {}).get(depth)

    def count(self, num_id: str, depth: int) -> dict[int, int]:
        """Count one item; the numbers of its level and those above."""
        abstract = self.abstract.get(num_id, num_id)
        counts = self.counts.setdefault(abstract, {})
        if num_id not in self.seen:
            self.seen.add(num_id)
            for level in self.restarts.get(num_id, {}):
                counts.pop(level, None)
        for deeper in [level for level in counts if level > depth]:
            del counts[deeper]
        for level in range(depth + 1):
            if level == depth or level not in counts:
                known = self.level(num_id, level) or Level()
                start = self.restarts.get(num_id, {}).get(level, known.start)
                counts[level] = counts.get(level, start - 1) + 1
        return dict(counts)

    def label(self, num_id: str, depth: int, counts: dict[int, int]) -> str:
        """The number as Word prints it, such as `2.1`."""
        level = self.level(num_id, depth)
        if level is None or level.kind in ("bullet", "none"):
            return ""

        def fill(match: re.Match[str]) -> str:
            at = int(match[1]) - 1
            kind = (self.level(num_id, at) or Level()).kind
            return write_number(counts.get(at, 1), kind)

        return re.sub(r"%([1-9])", fill, level.text).strip().rstrip(".)")


def read_styles(root: Any) -> Styles:
    """The paragraph styles of `word/styles.xml`."""
    styles = Styles()
    for each in root:
        if local_name(each) != "style":
            continue
        outline = _number(child(each, "pPr", "outlineLvl"))
        numbering = child(each, "pPr", "numPr")
        num_id = child(numbering, "numId")
        styles.by_id[attribute(each, "styleId")] = Style(
            name=_value(child(each, "name")),
            based_on=_value(child(each, "basedOn")),
            outline=outline,
            num_id=None if num_id is None else _value(num_id),
            num_level=_number(child(numbering, "ilvl")),
        )
    return styles


def read_numbering(root: Any) -> Numbering:
    """The numberings of `word/numbering.xml`."""
    numbering = Numbering()
    links: dict[str, str] = {}
    linked: dict[str, str] = {}
    for each in root:
        if local_name(each) == "abstractNum":
            key = attribute(each, "abstractNumId")
            numbering.levels[key] = {
                int(attribute(level, "ilvl") or 0): _read_level(level) for level in each if local_name(level) == "lvl"
            }
            if style := _value(child(each, "styleLink")):
                links[style] = key
            if style := _value(child(each, "numStyleLink")):
                linked[key] = style
        elif local_name(each) == "num":
            key = attribute(each, "numId")
            numbering.abstract[key] = _value(child(each, "abstractNumId"))
            numbering.restarts[key] = {
                int(attribute(level, "ilvl") or 0): _number(child(level, "startOverride")) or 1
                for level in each
                if local_name(level) == "lvlOverride" and child(level, "startOverride") is not None
            }
    for key, style in linked.items():
        if not numbering.levels[key] and style in links:
            numbering.levels[key] = numbering.levels[links[style]]
    return numbering


def write_number(number: int, kind: str) -> str:
    """A number in one of Word's number formats."""
    if kind in ("lowerLetter", "upperLetter"):
        letter = chr(ord("a") + (number - 1) % 26) * ((number - 1) // 26 + 1)
        return letter if kind == "lowerLetter" else letter.upper()
    if kind in ("lowerRoman", "upperRoman"):
        out, rest = "", number % 4000
        for value, sign in (*_ROMAN, *_ROMAN_SMALL):
            out += sign * (rest // value)
            rest %= value
        return out if kind == "lowerRoman" else out.upper()
    return f"{number:02d}" if kind == "decimalZero" else str(number)


def _read_level(element: Any) -> Level:
    start = _number(child(element, "start"))
    return Level(
        kind=_value(child(element, "numFmt")) or "decimal",
        text=_value(child(element, "lvlText")),
        start=1 if start is None else start,
    )


def _value(element: Any) -> str:
    return "" if element is None else attribute(element, "val")


def _number(element: Any) -> int | None:
    text = _value(element)
    return int(text) if re.fullmatch(r"-?\d{1,6}", text) else None
