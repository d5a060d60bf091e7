"""A pre-tokenizer's regular expression as a table: one look-up a character, no backtracking.

The subset that pre-tokenizers are written in: alternatives, groups, `(?i:...)`, greedy `? * + {m,n}`, one-character
classes and look-aheads at one character. The table gives the match a backtracking engine would find (leftmost
alternative first, greedy), by keeping the threads of the simulation in order of preference, as RE2 does
(R. Cox, https://swtch.com/~rsc/regexp/regexp3.html); look-aheads are settled when the next character is known.
Anything else raises `UnknownPattern`, and the caller leaves the work to Hugging Face's own code.

Knows patterns and characters; not tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from espalier.tokens.pretoken_charsets import CODE_POINTS, Charset, charset, folded_charset

MAX_STATES = 2000
_ESCAPE = re.compile(r"\\(?:[pP]\{\^?\w+\}|[sSdD]|[rnt]|[^\w])|\.")
_CASELESS = frozenset(("\\s", "\\S", "\\r", "\\n", "\\t", "."))
_COUNT = re.compile(r"\{(\d+)(,?)(\d*)\}")
_QUANTIFIER = re.compile(r"[?*+]|\{\d+,?\d*\}")
# Two letters in a row inside a character's full case folding (ß folds to ss): such literals could match one character.
_FOLDED_PAIRS = frozenset(
    folded[at : at + 2]
    for folded in (chr(point).casefold() for point in range(0xA0, 0x20000) if not 0xD800 <= point < 0xE000)
    if len(folded) > 1
    for at in range(len(folded) - 1)
)


class UnknownPattern(Exception):
    """The expression uses what this compiler does not know; str() says what."""


class Automaton(NamedTuple):
    """A compiled expression.

    classes: uint8 (CODE_POINTS,), the kind of each character. steps: int32 (states * width,), at
    `state offset + kind` holds `next state's offset * 2 + (1 when a match ends before this character)`; kind
    `width - 1` is the end of the text. Offset 0 is the state of no hope, offset `width` the start.
    """

    classes: npt.NDArray[np.uint8]
    steps: npt.NDArray[np.int32]
    width: int


class _Step(NamedTuple):
    """An instruction: char SET, look SET WANTED, split FIRST SECOND (preferred first), jump TARGET, match."""

    kind: str
    first: int = 0
    second: int = 0


@dataclass(slots=True)
class _Program:
    code: list[_Step]
    sets: list[Charset]
    names: dict[tuple[str, bool], int]


@cache
def compile_pattern(pattern: str) -> Automaton:
    """The table of a pattern. Raises UnknownPattern."""
    return _tabulate(_Parser(pattern).program())


def compile_set(matched: Charset, *, runs: bool) -> Automaton:
    """The table that matches one character of a set, or the longest run of them."""
    program = _Program([_Step("char"), _Step("match")], [matched], {})
    if runs:
        program.code = [_Step("char"), _Step("split", 0, 2), _Step("match")]
    return _tabulate(program)


def is_total(automaton: Automaton) -> bool:
    """Whether a match of at least one character starts at every character, whatever follows it."""
    width = automaton.width
    steps = automaton.steps.reshape(-1, width)
    return all(bool((steps[steps[1, kind] // 2 // width] & 1).all()) for kind in range(width - 1))


class _Parser:
    """Recursive descent over the pattern; emits instructions as it goes."""

    def __init__(self, pattern: str) -> None:
        self.text, self.at, self.folding = pattern, 0, False
        self.out = _Program([], [], {})
        self.before = ""  # the literal just before, where folding could join two of them

    def program(self) -> _Program:
        self._alternatives()
        if self.at < len(self.text):
            raise UnknownPattern(f"`{self.text[self.at]}` at {self.at}")
        self.out.code.append(_Step("match"))
        return self.out

    def _alternatives(self) -> None:
        code = self.out.code
        jumps = []
        while True:
            start = len(code)
            self._sequence()
            if not self._take("|"):
                break
            code.insert(start, _Step("split", start + 1, len(code) + 2))
            _shift(code, start + 1, start, 1)
            jumps.append(len(code))
            code.append(_Step("jump", -1))
        for jump in jumps:
            code[jump] = _Step("jump", len(code))

    def _sequence(self) -> None:
        self.before = ""
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            start = len(self.out.code)
            self._one()
            found = _QUANTIFIER.match(self.text, self.at)
            if found:
                self.at = found.end()
                self.before = ""
                if self.text[self.at : self.at + 1] in ("?", "+", "*", "{"):
                    raise UnknownPattern(f"a possessive, lazy or double quantifier at {self.at}")
                self._repeat(start, found.group())

    def _one(self) -> None:
        if self._take("(?=") or self._take("(?!"):
            wanted = self.text[self.at - 1] == "="
            self._class("look", wanted)
            if not self._take(")"):
                raise UnknownPattern("a look-ahead at more than one character")
        elif self._take("(?:") or self._take("(?i:") or (self._peek("(") and not self._peek("(?") and self._take("(")):
            outer = self.folding
            self.folding = outer or self.text[self.at - 2 : self.at] == "i:"
            self._alternatives()
            if not self._take(")"):
                raise UnknownPattern("an open group")
            self.folding, self.before = outer, ""
        else:
            self._class("char", True)

    def _class(self, kind: str, wanted: bool) -> None:
        """One character's set: a bracket, an escape or a literal."""
        start = self.at
        found = _ESCAPE.match(self.text, start)
        literal = False
        if found:
            self.at = found.end()
        elif self._peek("["):
            self.at = _bracket_end(self.text, start)
        elif start < len(self.text) and self.text[start] not in "()[]{}?*+|^$.\\":
            self.at += 1
            literal = True
        else:
            raise UnknownPattern(f"`{self.text[start : start + 4]}` at {start}")
        source = self.text[start : self.at]
        if literal and self.folding:
            pair = self.before + source.casefold()
            if not source.isascii() or pair in _FOLDED_PAIRS:
                raise UnknownPattern(f"`{pair}` in any case")
            self.before = source.casefold()
        else:
            self.before = ""
        self.out.code.append(_Step(kind, self._set(source), wanted))

    def _set(self, source: str) -> int:
        folds = self.folding and source not in _CASELESS
        key = (source, folds)
        if key not in self.out.names:
            if folds and ("\\" in source or not source.isascii()):  # could match several characters
                raise UnknownPattern(f"`{source}` in any case")
            self.out.names[key] = len(self.out.sets)
            self.out.sets.append(_characters(source, folds))
        return self.out.names[key]

    def _repeat(self, start: int, quantifier: str) -> None:
        least, most = {"?": (0, 1), "*": (0, None), "+": (1, None)}.get(quantifier) or _counts(quantifier)
        code = self.out.code
        body = code[start:]
        del code[start:]
        for _ in range(least):
            _append(code, body, start)
        if most is None:
            again = len(code)
            code.append(_Step("split", again + 1, again + len(body) + 2))
            _append(code, body, start)
            code.append(_Step("jump", again))
        else:
            end = len(code) + (most - least) * (len(body) + 1)
            for _ in range(most - least):
                code.append(_Step("split", len(code) + 1, end))
                _append(code, body, start)

    def _peek(self, word: str) -> bool:
        return self.text.startswith(word, self.at)

    def _take(self, word: str) -> bool:
        if not self._peek(word):
            return False
        self.at += len(word)
        return True


def _bracket_end(text: str, start: int) -> int:
    """Where the bracket that opens at `start` ends; what it means is for the engine to say."""
    depth, at = 0, start
    if text[start + 1 : start + 2] == "]" or text[start + 1 : start + 3] == "^]":
        raise UnknownPattern(f"`{text[start : start + 3]}` at {start}")
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == "[":
            depth += 1
        elif text[at] == "]":
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    raise UnknownPattern(f"an open bracket at {start}")


def _counts(quantifier: str) -> tuple[int, int | None]:
    found = _COUNT.fullmatch(quantifier)
    if found is None:
        raise UnknownPattern(quantifier)
    least = int(found[1])
    most = least if not found[2] else int(found[3]) if found[3] else None
    if (most or least) > 100 or (most is not None and most < least):
        raise UnknownPattern(f"the count {quantifier}")
    return least, most


def _characters(source: str, folds: bool) -> Charset:
    if folds:
        return folded_charset(source)
    if source == ".":
        return charset(".")
    if source == "\\S":
        return _complement(charset("\\s"))
    if len(source) == 1 or source in ("\\r", "\\n", "\\t") or re.fullmatch(r"\\[^\w]", source):
        found = np.zeros(CODE_POINTS, np.bool_)
        found[ord({"\\r": "\r", "\\n": "\n", "\\t": "\t"}.get(source, source[-1]))] = True
        return found
    return charset(source)


def _complement(found: Charset) -> Charset:
    other = ~found
    other[0xD800:0xE000] = False
    return other


def _shift(code: list[_Step], start: int, threshold: int, by: int) -> None:
    """Move the targets of code[start:] that point at or past `threshold`."""
    for at in range(start, len(code)):
        code[at] = _moved(code[at], lambda target: target + by if target >= threshold else target)


def _append(code: list[_Step], body: Sequence[_Step], origin: int) -> None:
    by = len(code) - origin
    code.extend(_moved(step, lambda target: target + by) for step in body)


def _moved(step: _Step, move: Callable[[int], int]) -> _Step:
    if step.kind == "split":
        return _Step("split", move(step.first), move(step.second))
    return _Step("jump", move(step.first)) if step.kind == "jump" else step


def _tabulate(program: _Program) -> Automaton:
    """Threads in order of preference -> states; kinds of characters -> columns."""
    if not program.sets:
        raise UnknownPattern("the pattern is empty")
    classes, members = _partition(program.sets)
    width = members.shape[1] + 1
    states: dict[tuple[int, ...], int] = {(): 0, (0,): 1}
    rows: list[list[int]] = []
    waiting = [(), (0,)]
    for threads in waiting:  # grows as it is walked
        row = []
        for kind in range(width):
            following, matched = _step(program.code, members, threads, kind)
            if matched and threads == (0,):
                raise UnknownPattern("the pattern matches the empty text")
            if following not in states:
                states[following] = len(states)
                waiting.append(following)
                if len(states) > MAX_STATES:
                    raise UnknownPattern("too many states")
            row.append(states[following] * width * 2 + matched)
        rows.append(row)
    steps = np.array(rows, np.int32).ravel()
    classes.flags.writeable = steps.flags.writeable = False
    return Automaton(classes, steps, width)


def _step(
    code: Sequence[_Step], members: npt.NDArray[np.bool_], threads: tuple[int, ...], kind: int
) -> tuple[tuple[int, ...], bool]:
    """The threads after a character of `kind`, and whether a match ends before it."""
    at_end = kind == members.shape[1]
    following: list[int] = []
    seen: set[int] = set()
    stack = list(reversed(threads))
    while stack:
        at = stack.pop()
        if at in seen:
            continue
        seen.add(at)
        step = code[at]
        if step.kind == "match":
            return tuple(following), True  # threads of lower preference are cut off
        inside = step.kind in ("char", "look") and not at_end and bool(members[step.first, kind])
        if step.kind == "char":
            if inside and at + 1 not in following:
                following.append(at + 1)
        elif step.kind == "look":
            if inside == bool(step.second):
                stack.append(at + 1)
        elif step.kind == "jump":
            stack.append(step.first)
        else:
            stack.extend((step.second, step.first))
    return tuple(following), False


def _partition(sets: Sequence[Charset]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Characters no set tells apart get one kind. -> (CODE_POINTS,) kinds, (sets, kinds) membership."""
    kinds = np.zeros(CODE_POINTS, np.int16)
    for found in sets:
        kinds = kinds * np.int16(2) + found
        kinds[0xD800:0xE000] = kinds[0]  # in no text, so no kind of their own
        present = np.bincount(kinds) > 0
        kinds = (np.cumsum(present) - 1).astype(np.int16)[kinds]
        if int(kinds.max()) > 250:
            raise UnknownPattern("too many kinds of characters")
    count = int(kinds.max()) + 1
    firsts = np.zeros(count, np.int64)
    firsts[kinds[::-1]] = np.arange(CODE_POINTS)[::-1]
    return kinds.astype(np.uint8), np.array([found[firsts] for found in sets])
