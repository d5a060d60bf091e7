"""An answer as it grows: token ids in, text out in pieces that are never wrong. Knows no model and no thread.

Text is decoded in windows, because a token may be a part of a character or lose its leading space at the start of a
text (the method of text-generation-inference and vLLM). A piece is held back while it may still change: an unfinished
UTF-8 character, or the beginning of a stop string.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

_UNFINISHED = "\ufffd"  # what decoding gives for bytes that are no character yet
_LONGEST_CHARACTER_TOKENS = 4  # a UTF-8 character has at most four bytes, a token at least one


class Decodes(Protocol):
    """The one thing needed of a tokenizer."""

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str: ...


class Detokenizer:
    """Ids one by one -> text in pieces whose concatenation is the decoded whole."""

    def __init__(self, tokenizer: Decodes) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._start = 0  # the window begins here, at a piece's beginning
        self._read = 0  # ids before this have been given out

    def add(self, id: int) -> str:
        """The text that has become certain with this token, often empty."""
        self._ids.append(id)
        text = self._tokenizer.decode(self._ids[self._start :])
        waiting = len(self._ids) - self._read
        # Bytes that never become a character are given out once no character could still take them in.
        if text.endswith(_UNFINISHED) and waiting < _LONGEST_CHARACTER_TOKENS:
            return ""
        return self._take(text)

    def flush(self) -> str:
        """What was held back, at the end."""
        return self._take(self._tokenizer.decode(self._ids[self._start :])) if self._read < len(self._ids) else ""

    def _take(self, text: str) -> str:
        known = self._tokenizer.decode(self._ids[self._start : self._read])
        self._start, self._read = self._read, len(self._ids)
        return text[len(known) :]


class StopFilter:
    """Text in pieces -> the same text up to the first stop string, which is cut off."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.stopped = False

    def add(self, text: str) -> str:
        """What may be shown now. After a stop string, nothing more."""
        if not self._stops or self.stopped:
            return "" if self.stopped else text
        self._held += text
        places = [(self._held.find(stop), stop) for stop in self._stops if stop in self._held]
        if places:
            self.stopped = True
            return self._release(min(places)[0])
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
