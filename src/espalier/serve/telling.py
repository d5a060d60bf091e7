"""What of an answer may be told, as its tokens come: words, calls of tools, and log-probabilities in step with them.

    token -> text (answer.Detokenizer) -> up to a stop string (answer.StopFilter) -> words and calls (toolcalls)

Knows no model and no thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from espalier.core.types import TokenLogprob, ToolCall
from espalier.serve.answer import Decodes, Detokenizer, StopFilter
from espalier.serve.toolcalls import CallParser, Said


@dataclass(frozen=True, slots=True)
class Piece:
    """What has become certain."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.text or self.calls or self.logprobs)


class Telling:
    """One answer. `marks`: special tokens that are read as this text, by id; all others are no text."""

    def __init__(
        self,
        tokenizer: Decodes,
        stops: Sequence[str],
        parser: CallParser | None = None,
        marks: Mapping[int, str] | None = None,
    ) -> None:
        self._detokenizer = Detokenizer(tokenizer)
        self._stop = StopFilter(stops)
        self._parser = parser
        self._marks = marks or {}
        self._read = 0  # characters decoded
        self._shown = 0  # of them, those that no stop string can take back
        self._untold: deque[tuple[int, TokenLogprob]] = deque()  # with the character each begins at

    @property
    def stopped(self) -> bool:
        """Whether a stop string, or the one call that may come, has ended the answer."""
        return self._stop.stopped or bool(self._parser and self._parser.complete)

    @property
    def called(self) -> bool:
        """Whether a tool was called."""
        return self._parser is not None and self._parser.called

    def add(self, token: int, logprob: TokenLogprob | None = None) -> Piece:
        """Take the next token."""
        if logprob is not None:
            self._untold.append((self._read, logprob))
        mark = self._marks.get(token)
        text = self._detokenizer.add(token) if mark is None else self._detokenizer.flush() + mark
        return self._tell(text)

    def flush(self) -> Piece:
        """What was held back, at the end."""
        rest = self._tell(self._detokenizer.flush())
        shown = self._stop.flush()
        self._shown += len(shown)
        said = self._parse(shown)
        last = self._parser.flush() if self._parser else Said()
        if not self._stop.stopped:
            self._shown = self._read + 1  # also tokens at the end that are no text
        return Piece(
            rest.text + said.text + last.text, rest.calls + said.calls + last.calls, rest.logprobs + self._release()
        )

    def _tell(self, text: str) -> Piece:
        self._read += len(text)
        shown = self._stop.add(text)
        self._shown += len(shown)
        said = self._parse(shown)
        return Piece(said.text, said.calls, self._release() if said.text or said.calls else ())

    def _parse(self, text: str) -> Said:
        return self._parser.add(text) if self._parser else Said(text)

    def _release(self) -> tuple[TokenLogprob, ...]:
        """Tokens that begin in what was shown."""
        told = []
        while self._untold and self._untold[0][0] < self._shown:
            told.append(self._untold.popleft()[1])
        return tuple(told)
