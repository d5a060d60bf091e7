"""Calls of tools out of an answer's text, as it streams: words before a call are told at once, a call whole.

Each family writes calls its own way (`tokens.chat.call_format`). What looks like a call and is none, because it is no
JSON or names a tool that was not offered, stays text: nothing an answer says is lost. Knows no model and no HTTP.
"""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from espalier.core.types import ToolCall
from espalier.tokens.chat import CallFormat

# What opens a call, by family; a Llama may leave it out and begin with the JSON itself.
MARKS: dict[CallFormat, tuple[str, ...]] = {
    "hermes": ("<tool_call>", "</tool_call>"),
    "llama": ("<|python_tag|>",),
    "mistral": ("[TOOL_CALLS]",),
    "mistral-args": ("[TOOL_CALLS]", "[ARGS]"),
}
_LETTERS = string.ascii_letters + string.digits


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is Python's word, not JSON's")


_decoder = json.JSONDecoder(parse_constant=_refuse)


@dataclass(frozen=True, slots=True)
class Said:
    """What has become certain: text, and calls after it."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()


class CallParser:
    """Text of one answer in pieces -> its words and its calls. `several`: whether more than one call may come."""

    def __init__(self, format: CallFormat, names: Collection[str], *, several: bool = True) -> None:
        self._format = format
        self._names = names
        self._several = several
        self._open = MARKS[format][0]
        self._held = ""
        self._calling = False  # inside what may be a call
        self._gap = ""  # spaces between the last words and what may be a call
        self._words = False  # words were said; a Llama then calls nothing any more
        self.called = False

    @property
    def complete(self) -> bool:
        """Whether the one call that may come has come."""
        return self.called and not self._several

    def add(self, text: str) -> Said:
        """Take the next piece of the answer."""
        self._held += text
        if self._format == "hermes":
            return self._follow_tags()
        if not self._calling:
            return self._look_for_call()
        return Said()  # the other families' calls end with the answer

    def flush(self) -> Said:
        """What was held back, at the end of the answer."""
        held, self._held = self._held, ""
        if not self._calling:
            return Said("" if self.called and not held.strip() else held)
        calls = self._read_calls(held)
        return self._tell(calls) if calls else Said(self._gap + held)

    def _follow_tags(self) -> Said:
        text, calls = "", []
        while not self.complete:
            if self._calling:
                inside, end, rest = self._held.partition(MARKS["hermes"][1])
                if not end:
                    break
                found = self._read_calls(inside)
                calls += found
                text += "" if found else self._gap + inside + end
                self._held, self._calling, self.called = rest, False, self.called or bool(found)
                continue
            said = self._look_for_call()
            text += said.text
            if not self._calling:
                break
        return Said(text, tuple(calls))

    def _look_for_call(self) -> Said:
        """Let words go as far as no call can begin in them."""
        place = self._begins_at()
        if place is not None:
            words, self._held = self._held[:place], self._held[place:]
            self._calling, self._gap = True, words[len(words.rstrip()) :]
            return self._say(words.rstrip())
        kept = self._may_begin()
        words, self._held = self._held[: len(self._held) - kept], self._held[len(self._held) - kept :]
        return self._say(words)

    def _begins_at(self) -> int | None:
        if self._format == "llama":
            start = len(self._held) - len(self._held.lstrip())
            begun = self._held.startswith(("{", self._open), start)
            return start if begun and not self._words else None
        place = self._held.find(self._open)
        return None if place < 0 else place

    def _may_begin(self) -> int:
        """How much of the held text's end may yet turn out to stand before a call: spaces, and part of its mark."""
        if self._format == "llama" and self._words:
            return 0
        for length in range(min(len(self._open) - 1, len(self._held)), 0, -1):
            if self._open.startswith(self._held[-length:]):
                break
        else:
            length = 0
        before = self._held[: len(self._held) - length]
        if self._format == "llama" and before.strip():
            return 0
        return length + len(before) - len(before.rstrip())

    def _say(self, words: str) -> Said:
        if self.called and not words.strip():
            return Said()  # between two calls
        self._words = self._words or bool(words.strip())
        return Said(words)

    def _tell(self, calls: list[ToolCall]) -> Said:
        self.called = True
        return Said("", tuple(calls if self._several else calls[:1]))

    def _read_calls(self, text: str) -> list[ToolCall]:
        """The calls in `text`, which begins with the family's mark; none when one of them is no call."""
        pieces = [piece for piece in text.split(self._open) if piece.strip()]
        found = [_make_call(call, self._names, self._format) for piece in pieces for call in self._objects(piece)]
        return [call for call in found if call is not None] if found and None not in found else []

    def _objects(self, text: str) -> Iterator[dict[str, Any] | None]:
        """The objects that stand for calls in a piece after a mark; None for what is none."""
        if self._format == "mistral-args":
            name, _, arguments = text.partition("[ARGS]")
            yield {"name": name.strip(), "arguments": _read(arguments)}
            return
        rest = text.strip().rstrip(";")
        while rest:
            try:
                value, end = _decoder.raw_decode(rest)
            except (ValueError, RecursionError):
                yield None
                return
            for each in value if isinstance(value, list) else [value]:
                yield each if isinstance(each, dict) else None
            rest = rest[end:].lstrip("; \n")


def _read(text: str) -> Any:
    try:
        return _decoder.decode(text)
    except (ValueError, RecursionError):
        return None


def _make_call(said: dict[str, Any] | None, names: Collection[str], format: CallFormat) -> ToolCall | None:
    if said is None or not isinstance(said.get("name"), str) or said["name"] not in names:
        return None
    arguments = said.get("arguments", said.get("parameters", {}))
    if isinstance(arguments, str):  # some models write the object as a string
        arguments = _read(arguments)
    if not isinstance(arguments, dict):
        return None
    try:
        written = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):  # a number beyond all, or nested so deeply that it could only just be read
        return None
    try:
        written.encode()
    except UnicodeEncodeError:  # half a surrogate pair is no text; as an escape it is JSON
        written = json.dumps(arguments)
    return ToolCall(_make_id(format), said["name"], written)


def _make_id(format: CallFormat) -> str:
    """Mistral's templates take ids of nine letters and digits only."""
    count, prefix = (9, "") if format.startswith("mistral") else (24, "call_")
    return prefix + "".join(secrets.choice(_LETTERS) for _ in range(count))
