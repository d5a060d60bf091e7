"""Drops what does not read like prose: the rules published with Gopher, FineWeb and MassiveText's repetition table.

gopher: Rae et al. 2021, appendix A1.1 (https://arxiv.org/abs/2112.11446); repetition: its table A1;
fineweb: Penedo et al. 2024, section 3.6 (https://arxiv.org/abs/2406.17557).
Words are parted by white space and lines are taken without the blank ones and the white space around them, so the
rules suit languages that put spaces between words; `languages` says which documents to judge.

Legend: n = rows, C = code points.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from espalier.core.types import Spec
from espalier.data.clean.rewriting import say_drops
from espalier.data.flow.batch import tag_column
from espalier.data.flow.outcome import Outcome
from espalier.data.flow.step import CleanStep
from espalier.data.kernels.buffers import Bytes, Offsets, view_texts

Share = Annotated[float, Field(ge=0)]
Size = Annotated[int, Field(ge=2, le=30)]
_OFF = "; null: no such rule"


class GopherRules(Spec):
    """Of words, symbols and lines."""

    min_words: int | None = Field(50, description="fewest words" + _OFF)
    max_words: int | None = Field(100_000, description="most words" + _OFF)
    min_word_chars: float | None = Field(3, description="least mean length of a word" + _OFF)
    max_word_chars: float | None = Field(10, description="greatest mean length of a word" + _OFF)
    max_hashes: Share | None = Field(0.1, description="most # for each word" + _OFF)
    max_ellipses: Share | None = Field(0.1, description="most ellipses for each word" + _OFF)
    max_bullet_lines: Share | None = Field(0.9, description="most of the lines that begin with a bullet" + _OFF)
    max_ellipsis_lines: Share | None = Field(0.3, description="most of the lines that end in an ellipsis" + _OFF)
    min_alphabetic_words: Share | None = Field(0.8, description="least of the words that hold a letter" + _OFF)
    min_stop_words: int | None = Field(2, description="how many of the stop words must occur" + _OFF)
    stop_words: tuple[str, ...] = Field(
        ("the", "be", "to", "of", "and", "that", "have", "with"), description="words that every prose text has"
    )
    bullets: str = Field("•-", description="characters that make a line a bullet point")


class RepetitionRules(Spec):
    """Of lines, paragraphs and runs of words that occur again."""

    max_lines: Share | None = Field(0.3, description="most of the lines that occurred before" + _OFF)
    max_line_chars: Share | None = Field(0.2, description="most of the characters that are in such lines" + _OFF)
    max_paragraphs: Share | None = Field(0.3, description="most of the paragraphs that occurred before" + _OFF)
    max_paragraph_chars: Share | None = Field(0.2, description="... and of the characters in them" + _OFF)
    max_top: dict[Size, Share] = Field(
        {2: 0.2, 3: 0.18, 4: 0.16}, description="n -> most of the characters in the most frequent run of n words"
    )
    max_repeated: dict[Size, Share] = Field(
        {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10},
        description="n -> most of the characters in runs of n words that occurred before",
    )


class FineWebRules(Spec):
    """Of lines: for web pages, whose lists and menus they find. Tables, mails and source code fail them."""

    min_ended_lines: Share | None = Field(0.12, description="so many lines ending a sentence are too few" + _OFF)
    line_ends: str = Field(".'\"!?", description="characters that end a sentence")
    max_short_lines: Share | None = Field(0.67, description="from so many short lines on there are too many" + _OFF)
    short_line_chars: int = Field(30, ge=0, description="a short line has at most so many characters")
    max_repeated_line_chars: Share | None = Field(
        0.1, description="from so many characters in lines that occurred before on there are too many" + _OFF
    )
    max_line_breaks: Share | None = Field(0.3, description="most line ends for each word" + _OFF)


class QualitySpec(Spec):
    """Drop what fails a published rule of quality."""

    step: Literal["quality"] = "quality"
    gopher: GopherRules | None = Field(GopherRules(), description="Gopher's rules; null: none of them")
    repetition: RepetitionRules | None = Field(RepetitionRules(), description="rules of repetition; null: none of them")
    fineweb: FineWebRules | None = Field(None, description="FineWeb's rules, for web pages; {}: as published")
    languages: tuple[str, ...] = Field(
        (), description="judge only documents whose tag `language` is one of these; empty: all"
    )


Column = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rule:
    """A bound on a measured value. `fails(value, bound)` is elementwise."""

    name: str
    values: Column  # (n,)
    bound: float
    fails: Callable[[Column, float], npt.NDArray[np.bool_]]

    def say(self, row: int) -> str:
        words = {np.less: "at least", np.less_equal: "above", np.greater: "at most", np.greater_equal: "below"}
        return f"quality {self.name}: {self.values[row]:.4g}, must be {words[self.fails]} {self.bound:g}"  # type: ignore[index]


@dataclass(frozen=True, slots=True)
class Quality:
    """The prepared step: drops with "quality gopher.min_words: 12, must be at least 50"."""

    spec: QualitySpec

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        judged = np.ones(len(batch), np.bool_)
        if self.spec.languages:
            known = pc.is_in(tag_column(batch, "language"), pa.array(self.spec.languages, pa.string()))
            judged = pc.fill_null(known, False).to_numpy(zero_copy_only=False)
        reasons: list[str | None] = [None] * len(batch)
        for rule in measure(batch.column("text"), self.spec):
            failing = rule.fails(rule.values, rule.bound) & judged
            for row in np.flatnonzero(failing).tolist():
                reasons[row] = rule.say(row)
            judged &= ~failing
        return say_drops(reasons)


def measure(texts: pa.LargeStringArray, spec: QualitySpec) -> Iterator[Rule]:
    """Each rule that is on, with its value for every row (n,). A share of nothing is 0."""
    data, offsets = view_texts(texts)
    gopher, repetition, fineweb = spec.gopher, spec.repetition, spec.fineweb
    classes = list_classes(fineweb.line_ends if fineweb else "", gopher.bullets if gopher else "")
    if gopher or fineweb:
        prose = _count_prose(data, offsets, classes, spec)
        if gopher:
            yield from _apply_gopher(prose, gopher)
    if repetition:
        yield from _apply_repetition(_count_repetition(data, offsets, classes, repetition), repetition)
    if fineweb:
        lines = _count_repetition(data, offsets, classes, RepetitionRules(max_top={}, max_repeated={}))
        yield from _apply_fineweb(prose, lines, fineweb)


def _apply_gopher(found: dict[str, Column], rules: GopherRules) -> Iterator[Rule]:
    words, lines = found["words"], found["lines"]
    mean = _share(found["word_chars"], words)
    yield from _bound("gopher.min_words", words, rules.min_words, np.less)
    yield from _bound("gopher.max_words", words, rules.max_words, np.greater)
    yield from _bound("gopher.min_word_chars", mean, rules.min_word_chars, np.less)
    yield from _bound("gopher.max_word_chars", mean, rules.max_word_chars, np.greater)
    yield from _bound("gopher.max_hashes", _share(found["hashes"], words), rules.max_hashes, np.greater)
    yield from _bound("gopher.max_ellipses", _share(found["ellipses"], words), rules.max_ellipses, np.greater)
    bullets, ellipses = _share(found["bullet_lines"], lines), _share(found["ellipsis_lines"], lines)
    yield from _bound("gopher.max_bullet_lines", bullets, rules.max_bullet_lines, np.greater)
    yield from _bound("gopher.max_ellipsis_lines", ellipses, rules.max_ellipsis_lines, np.greater)
    alphabetic = _share(found["alphabetic_words"], words)
    yield from _bound("gopher.min_alphabetic_words", alphabetic, rules.min_alphabetic_words, np.less)
    yield from _bound("gopher.min_stop_words", found["stop_words"], rules.min_stop_words, np.less)


def _apply_repetition(found: dict[str, Column], rules: RepetitionRules) -> Iterator[Rule]:
    lines, paragraphs, chars = found["lines"], found["paragraphs"], found["chars"]
    again = "repetition.max_"
    yield from _bound(f"{again}lines", _share(found["repeated_lines"], lines), rules.max_lines, np.greater)
    line_chars, paragraph_chars = found["repeated_line_chars"], found["repeated_paragraph_chars"]
    yield from _bound(f"{again}line_chars", _share(line_chars, chars), rules.max_line_chars, np.greater)
    repeated = _share(found["repeated_paragraphs"], paragraphs)
    yield from _bound(f"{again}paragraphs", repeated, rules.max_paragraphs, np.greater)
    yield from _bound(f"{again}paragraph_chars", _share(paragraph_chars, chars), rules.max_paragraph_chars, np.greater)
    for kind, limits in (("top", rules.max_top), ("repeated", rules.max_repeated)):
        for size, limit in sorted(limits.items()):
            share = _share(found[f"{kind}.{size}"], chars)
            yield from _bound(f"{again}{kind}.{size}", share, limit, np.greater)


def _apply_fineweb(prose: dict[str, Column], lines: dict[str, Column], rules: FineWebRules) -> Iterator[Rule]:
    ended, short = _share(prose["ended_lines"], prose["lines"]), _share(prose["short_lines"], prose["lines"])
    yield from _bound("fineweb.min_ended_lines", ended, rules.min_ended_lines, np.less_equal)
    yield from _bound("fineweb.max_short_lines", short, rules.max_short_lines, np.greater_equal)
    repeated = _share(lines["repeated_line_chars"], prose["chars"] - prose["line_breaks"])
    yield from _bound("fineweb.max_repeated_line_chars", repeated, rules.max_repeated_line_chars, np.greater_equal)
    breaks = _share(prose["line_breaks"], prose["words"])
    yield from _bound("fineweb.max_line_breaks", breaks, rules.max_line_breaks, np.greater)


def _bound(name: str, values: Column, bound: float | None, fails: np.ufunc) -> Iterator[Rule]:
    if bound is not None:
        yield Rule(name, values, bound, fails)


def _share(part: Column, whole: Column) -> Column:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def _count_prose(data: Bytes, offsets: Offsets, classes: Bytes, spec: QualitySpec) -> dict[str, Column]:
    from espalier.data.kernels.prose import COUNTS, count_prose

    stops = sorted({word.encode() for word in spec.gopher.stop_words if word} if spec.gopher else ())
    stop_offsets = np.cumsum([0, *map(len, stops)], dtype=np.int64)
    first_stop = np.searchsorted(np.array([word[0] for word in stops], np.int64), np.arange(257)).astype(np.int64)
    stop_data = np.frombuffer(b"".join(stops) or b"\0", np.uint8)
    counts = np.empty((len(offsets) - 1, len(COUNTS)), np.int64)
    short = spec.fineweb.short_line_chars if spec.fineweb else 0
    count_prose(data, offsets, classes, stop_data, stop_offsets, first_stop, short, counts)
    return {name: counts[:, column].astype(np.float64) for column, name in enumerate(COUNTS)}


def _count_repetition(data: Bytes, offsets: Offsets, classes: Bytes, rules: RepetitionRules) -> dict[str, Column]:
    from espalier.data.kernels.repetition import COUNTS, count_repetition

    top, repeated = sorted(rules.max_top), sorted(rules.max_repeated)
    names = [*COUNTS, *(f"top.{size}" for size in top), *(f"repeated.{size}" for size in repeated)]
    counts = np.empty((len(offsets) - 1, len(names)), np.int64)
    top_limits = np.array([rules.max_top[size] for size in top], np.float64)
    limits = np.array([rules.max_repeated[size] for size in repeated], np.float64)
    sizes = np.array(top, np.int64), np.array(repeated, np.int64)
    count_repetition(data, offsets, classes, sizes[0], top_limits, sizes[1], limits, counts)
    return {name: counts[:, column].astype(np.float64) for column, name in enumerate(names)}


@functools.cache
def list_classes(line_ends: str, bullets: str) -> Bytes:
    """The classes of each code point, as the kernels know them. (C,)"""
    from espalier.data.kernels import prose

    alphabet = "".join("?" if 0xD800 <= code < 0xE000 else chr(code) for code in range(0x32000))
    letters = np.fromiter(map(str.isalpha, alphabet), np.uint8, len(alphabet))
    classes = letters * np.uint8(prose.ALPHABETIC)
    classes[[code for code, character in enumerate(alphabet[:0x3001]) if character.isspace()]] |= prose.SPACE
    classes[[ord(character) for character in line_ends]] |= prose.ENDS_LINE
    classes[[ord(character) for character in bullets]] |= prose.BULLET
    return classes


def prepare(spec: QualitySpec, folder: Path) -> Quality:
    """Ready to run; names no file."""
    return Quality(spec)


STEP = CleanStep("quality", 1, QualitySpec, prepare)
