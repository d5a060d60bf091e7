"""`Answers`: what a server gives of one request, as ids -> `Delta`s, as the embedded engine would tell them.

Text, stop strings, calls of tools and log-probabilities are made of the ids by the very code that engine uses.
"""

from __future__ import annotations

from dataclasses import replace

from espalier.core.errors import EspalierError
from espalier.core.ports import Delta
from espalier.core.types import SamplingSpec, TokenLogprob, Usage
from espalier.core.types.inference import FinishReason
from espalier.nn.base import LoadedBase
from espalier.serve.shape import Shape
from espalier.serve.telling import Piece, Telling
from espalier.tokens.tokenbytes import token_bytes
from espalier.wire.openai.completions import CompletionReader, Step, Told


class Answers:
    """One request's answers. The very last delta is held back until the usage of all is known."""

    def __init__(self, sampling: SamplingSpec, base: LoadedBase, shape: Shape) -> None:
        self._base = base
        self._ends = frozenset() if sampling.ignore_end else base.eos_ids
        self._wants_logprobs = sampling.logprobs is not None
        self._reader = CompletionReader(sampling.logprobs)
        drawn = sampling.temperature > 0
        # Where nothing is drawn all answers are one: it is asked for once and told as often as was wanted.
        self._copies = 1 if drawn else sampling.n
        self._open = {
            index: Telling(base.tokenizer, sampling.stop, shape.open_parser(), shape.marks)
            for index in range(sampling.n if drawn else 1)
        }
        self._last: Delta | None = None
        self.done = False  # nothing more is to be read

    @property
    def model(self) -> str:
        """What the server says it answered with."""
        return self._reader.model

    def read(self, line: bytes) -> list[Delta]:
        """What a line of the server's stream makes certain. Raises EspalierError for one that breaks the contract."""
        if self.done:
            return []
        found = [delta for step in self._reader.read(line) for delta in self._take(step)]
        if self._reader.ended and self._last is None:
            raise EspalierError("the server's answer broke off before its end", hint="its log says why")
        # An answer that ended here before it did there has no further usage to wait for.
        if self._last is not None and (self._reader.ended or self.done):
            found.append(replace(self._last, usage=self._usage()))
            self.done = True
        return found

    def cancel(self) -> list[Delta]:
        """The ends of answers that will not come; the last tells the usage so far."""
        ends = [end for index in sorted(self._open) for end in self._tell(index, Piece(), "cancelled")]
        last = self._last or (ends.pop() if ends else Delta("", "cancelled"))
        self.done = True
        return [*ends, replace(last, usage=self._usage())]

    def _take(self, step: Step) -> list[Delta]:
        telling = self._open.get(step.index)
        if telling is None:
            return []
        piece = Piece()
        for place, id in enumerate(step.ids):
            if id in self._ends or telling.stopped:
                break
            told = self._name(id, step.told[place]) if self._wants_logprobs and step.told else None
            added = telling.add(id, told)
            piece = Piece(piece.text + added.text, piece.calls + added.calls, piece.logprobs + added.logprobs)
        reason = step.reason or ("stop" if telling.stopped else None)
        if reason is None:
            return self._tell(step.index, piece, None) if piece else []
        rest = telling.flush()
        if reason == "stop" and telling.called:
            reason = "tool_calls"
        del self._open[step.index]
        deltas = self._tell(
            step.index, Piece(piece.text + rest.text, piece.calls + rest.calls, piece.logprobs + rest.logprobs), reason
        )
        if not self._open:
            self._last = deltas.pop()
            self.done = step.reason is None
        return deltas

    def _tell(self, index: int, piece: Piece, reason: FinishReason | None) -> list[Delta]:
        places = range(self._copies) if self._copies > 1 else (index,)
        usage = None if reason else self._usage()
        return [Delta(piece.text, reason, usage, place, piece.logprobs, piece.calls) for place in places]

    def _usage(self) -> Usage:
        used = self._reader.usage
        return used.model_copy(update={"completion_tokens": used.completion_tokens * self._copies})

    def _name(self, id: int, told: Told) -> TokenLogprob:
        backend = self._base.tokenizer.backend
        top = tuple(TokenLogprob(each, token_bytes(backend, each), value) for each, value in told[1])
        return TokenLogprob(id, token_bytes(backend, id), told[0], top)
