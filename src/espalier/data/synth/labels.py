"""Saying a class in words, and naming it: by its meaning, by a code the request explains, or by one learnt by heart."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from espalier.data.synth import values
from espalier.data.synth import vocabulary as words
from espalier.data.synth.draw import Draw
from espalier.data.synth.labelsets import LABEL_SETS

_SLOTS: dict[str, Callable[[Draw], str]] = {
    "thing": lambda draw: draw.pick(words.THINGS),
    "part": lambda draw: draw.pick(words.PARTS),
    "matter": lambda draw: draw.pick(words.MATTERS),
    "day": lambda draw: draw.pick(words.WEEKDAYS),
    "n": lambda draw: str(draw.between(2, 40)),
}
_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Naming:
    """How the classes of one set are called in one request. `legend` is what the request says about the names."""

    names: dict[str, str]  # meaning -> name
    legend: str


def say(draw: Draw, phrasing: str) -> str:
    """`phrasing` with its slots filled."""
    if "{" not in phrasing:
        return phrasing
    return _SLOT.sub(lambda match: _SLOTS[match.group(1)](draw), phrasing)


def draw_class(draw: Draw, label_set: str) -> tuple[str, str]:
    """A class of the set and one way to say it."""
    classes = LABEL_SETS[label_set]
    meaning = draw.pick(_MEANINGS[label_set])
    return meaning, say(draw, draw.pick(classes[meaning]))


def name_by_meaning(draw: Draw, label_set: str) -> Naming:
    """The meaning itself, in the case of letters the request shows."""
    meanings = draw.shuffled(_MEANINGS[label_set])
    case = draw.pick((str.lower, str.lower, str.upper, str.capitalize))
    names = {meaning: case(meaning) for meaning in meanings}
    return Naming(names, draw.pick((", ", " / ", " or ", "; ")).join(names.values()))


def name_by_code(draw: Draw, label_set: str) -> Naming:
    """Codes thrown for this request alone, explained in it: "QRT: power; BNS: billing"."""
    meanings = draw.shuffled(_MEANINGS[label_set])
    names: dict[str, str] = {}
    style = draw.pick((values.code, values.code, _letter_and_digit))
    for meaning in meanings:
        code = style(draw)
        while code in names.values():
            code = style(draw)
        names[meaning] = code
    pair, gap = draw.pick(((": ", "; "), (" = ", ", "), (" means ", "; "), (" ", ", "), (" - ", "\n")))
    if draw.chance(0.3):
        return Naming(names, gap.join([f"{meaning}{pair}{code}" for meaning, code in names.items()]))
    return Naming(names, gap.join([f"{code}{pair}{meaning}" for meaning, code in names.items()]))


def name_by_heart(draw: Draw, label_set: str) -> Naming:
    """One of three code books that never change; the request says which one, and explains nothing."""
    book = draw.pick(BOOK_NAMES)
    return Naming(_BOOKS[label_set][book], f"{book} code")


def _letter_and_digit(draw: Draw) -> str:
    return draw.pick("KPQSTVX") + str(draw.between(1, 9))


def _code_books() -> dict[str, dict[str, dict[str, str]]]:
    """Three fixed books a set: first letters, numbered letters, three letters thrown once and for all."""
    draw = Draw("code books 1")
    books = {}
    for label_set, classes in LABEL_SETS.items():
        initials = {meaning: meaning[:3].upper() for meaning in classes}
        numbered = {meaning: f"{label_set[0].upper()}{i}" for i, meaning in enumerate(classes, 1)}
        thrown = {meaning: draw.letters(3) for meaning in classes}
        books[label_set] = dict(zip(BOOK_NAMES, (initials, numbered, thrown), strict=True))
    return books


BOOK_NAMES = ("short", "number", "letter")
_MEANINGS = {label_set: tuple(classes) for label_set, classes in LABEL_SETS.items()}
_BOOKS = _code_books()
SETS = tuple(LABEL_SETS)
