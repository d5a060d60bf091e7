"""An answer as it grows: token ids in, text out in pieces that are never wrong. Knows no model and no thread.

Text is decoded in windows, because a token may be a part of a character or lose its leading space at the start of a
text (the method of text-generation-inference and vLLM). A piece is held back while it may still change: an unfinished
UTF-8 character, or the beginning of a stop string.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

_UNFINISHED = "\ufffd"  # what decoding gives for bytes that are no character yet
_MOST_UNFINISHED = 3  # a UTF-8 character has at most four bytes; some decoders give one mark for each, some for all
_LONGEST_WINDOW_TOKENS = 32  # beyond it a window of bytes that are no text is cut where it may be


class Decodes(Protocol):
    """The one thing needed of a tokenizer."""

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str: ...


class Detokenizer:
    """Ids one by one -> text in pieces whose concatenation is the decoded whole."""

    def __init__(self, tokenizer: Decodes) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._start = 0  # the window begins here, at a piece's beginning
        self._read = 0  # ids before this have been given out whole
        self._given = 0  # characters of the window's text that have been given out

    def add(self, id: int) -> str:
        """The text that has become certain with this token, often empty."""
        self._ids.append(id)
        text = self._tokenizer.decode(self._ids[self._start :])
        certain = _certain(text)
        piece = text[self._given : certain]
        self._given = max(certain, self._given)
        if certain == len(text):
            self._start, self._read = self._read, len(self._ids)
            self._given = len(self._tokenizer.decode(self._ids[self._start :]))
        elif len(self._ids) - self._start > _LONGEST_WINDOW_TOKENS:
            self._cut(text)
        return piece

    def flush(self) -> str:
        """What was held back, at the end."""
        text = self._tokenizer.decode(self._ids[self._start :])
        piece, self._given = text[self._given :], len(text)
        return piece

    def _cut(self, text: str) -> None:
        """Begin the window at a later token, where what follows decodes by itself as it does there: no character goes
        over that place, whatever comes."""
        for place in range(len(self._ids) - 1, self._start, -1):
            before = self._tokenizer.decode(self._ids[self._start : place])
            if len(before) <= self._given and before + self._tokenizer.decode(self._ids[place:]) == text:
                self._start = self._read = place
                self._given -= len(before)
                return


def _certain(text: str) -> int:
    """How many characters at the start no further token can change."""
    certain = len(text)
    while certain and text[certain - 1] == _UNFINISHED and len(text) - certain < _MOST_UNFINISHED:
        certain -= 1
    return certain


class StopFilter:
    """Text, however it is cut into pieces -> the same up to the stop string that is whole first, which is cut off."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.stopped = False

    def add(self, text: str) -> str:
        """What may be shown now. After a stop string, nothing more."""
        if not self._stops or self.stopped:
            return "" if self.stopped else text
        self._held += text
        places = [(self._held.find(stop), len(stop)) for stop in self._stops if stop in self._held]
        if places:
            self.stopped = True
            return self._release(min(places, key=lambda found: (sum(found), found))[0])
        return self._release(len(self._held) - self._beginning_of_a_stop())

    def flush(self) -> str:
        """What was held back in case it became a stop string."""
        return "" if self.stopped else self._release(len(self._held))

    def _release(self, end: int) -> str:
        text, self._held = self._held[:end], self._held[end:]
        return text

    def _beginning_of_a_stop(self) -> int:
        """Length of the longest end of the held text with which a stop string begins."""
        longest = max(map(len, self._stops)) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0
