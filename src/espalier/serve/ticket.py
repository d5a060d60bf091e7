"""A `Ticket`: one request from admission to its last token, and how its asker hears of it. Knows no batch."""

from __future__ import annotations

from collections.abc import Callable

from espalier.core.errors import EspalierError, InvalidInput
from espalier.core.ports import Delta
from espalier.core.types import Generation, SamplingSpec, Usage
from espalier.core.types.inference import FinishReason
from espalier.nn.base import LoadedBase
from espalier.nn.sample import Sampler
from espalier.serve.answer import Detokenizer, StopFilter
from espalier.serve.scheduler import Work

Tell = Callable[[Delta | EspalierError], None]


class Ticket:
    """Every method but `generation` is called by the engine under its lock.

    The token that ends an answer counts and is listed among its ids, as in `transformers`; it is no text.
    """

    def __init__(
        self, work: Work, sampling: SamplingSpec, base: LoadedBase, tell: Tell | None, *, in_pieces: bool
    ) -> None:
        _check_sampling(sampling)
        self.work = work
        self.sampler = Sampler(sampling)
        self.done = False
        self._base = base
        self._tell = tell
        # Text is followed token by token only where somebody reads it so, or where a stop string must be seen in time.
        self._follows = in_pieces or bool(sampling.stop)
        self._detokenizer = Detokenizer(base.tokenizer)
        self._stop = StopFilter(sampling.stop)
        self._pieces: list[str] = []
        self._reason: FinishReason = "error"
        self._error: EspalierError | None = None

    def add(self, token: int) -> bool:
        """Take the next token; True when the answer ends with it."""
        self.work.tokens.append(token)
        ended = token in self._base.eos_ids
        if not ended and self._follows:
            self._say(self._stop.add(self._detokenizer.add(token)))
        if ended or self._stop.stopped:
            self.end("stop")
        elif len(self.work.tokens) >= self.work.most_tokens:
            self.end("length")
        return self.done

    def end(self, reason: FinishReason) -> None:
        """Give out what was held back, then the finish reason and the usage; after the first time, nothing."""
        if self.done:
            return
        self.done, self._reason = True, reason
        if self._follows:
            rest = self._stop.add(self._detokenizer.flush()) + self._stop.flush()
        else:
            answer = self.work.answer
            rest = self._base.tokenizer.decode(answer[:-1] if reason == "stop" else answer)
        self._pieces.append(rest)
        if self._tell is not None:
            self._tell(Delta(rest, reason, self._usage()))

    def fail(self, error: EspalierError) -> None:
        """The answer ends with an error."""
        self.done, self._error = True, error
        if self._tell is not None:
            self._tell(error)

    def generation(self) -> Generation:
        """The whole answer. Raises what it failed with."""
        if self._error is not None:
            raise self._error
        return Generation(
            text="".join(self._pieces),
            finish_reason=self._reason,
            usage=self._usage(),
            token_ids=tuple(self.work.answer),
        )

    def _say(self, text: str) -> None:
        if text:
            self._pieces.append(text)
            if self._tell is not None:
                self._tell(Delta(text, usage=self._usage()))

    def _usage(self) -> Usage:
        return Usage(prompt_tokens=self.work.prompt_tokens, completion_tokens=len(self.work.answer))


def _check_sampling(sampling: SamplingSpec) -> None:
    if sampling.max_tokens < 1:
        raise InvalidInput(f"max_tokens is {sampling.max_tokens}", hint="ask for at least one token")
    if not 0 <= sampling.temperature <= 10:
        raise InvalidInput(f"temperature is {sampling.temperature}", hint="0 (greedy) to 2 is usual")
    if not 0 < sampling.top_p <= 1:
        raise InvalidInput(f"top_p is {sampling.top_p}", hint="above 0, and at most 1")
