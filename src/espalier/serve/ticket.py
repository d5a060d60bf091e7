"""A `Ticket`: one answer from admission to its last token, and how its asker hears of it. Knows no batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from espalier.core.errors import EspalierError, Unavailable
from espalier.core.ports import Delta
from espalier.core.types import Generation, SamplingSpec, TokenLogprob, ToolCall, Usage
from espalier.core.types.inference import FinishReason
from espalier.nn.base import LoadedBase
from espalier.nn.sample import Sampler
from espalier.serve.mailbox import Mailbox
from espalier.serve.shape import PLAIN, Shape
from espalier.serve.telling import Piece, Telling
from espalier.serve.work import Work
from espalier.tokens.tokenbytes import token_bytes

# Takes a piece, or the error an answer ends with; False when nobody will read it.
Tell = Callable[[Delta | EspalierError], bool]
Told = tuple[float, list[tuple[int, float]]]  # log-probability of a token; the likeliest ids there with theirs


class Ticket:
    """Every method but `generation` is called by the engine under its lock.

    The token that ends an answer counts and is listed among its ids, as in `transformers`; it is no text, and its
    log-probability is not told. `number`: which of the `n` answers to a request it is.
    """

    def __init__(
        self,
        work: Work,
        sampling: SamplingSpec,
        base: LoadedBase,
        tell: Tell | None,
        *,
        in_pieces: bool,
        shape: Shape = PLAIN,
        number: int = 0,
    ) -> None:
        self.work = work
        self.number = number
        self.followers: list[Ticket] = []  # answers to the same prompt, which begin when it is computed
        self.done = False
        self._form = shape.open_grammar()
        self.sampler = Sampler(sampling, work.tokens, number, self._form)
        self._base = base
        self._ends = frozenset() if sampling.ignore_end else base.eos_ids
        self._tell = tell
        # Text is followed token by token only where somebody reads it so, or where what it says must be seen in time.
        self._telling: Telling | None = None
        parser = shape.open_parser()
        if in_pieces or sampling.stop or parser or sampling.logprobs is not None:
            self._telling = Telling(base.tokenizer, sampling.stop, parser, shape.marks)
        self._text: list[str] = []
        self._calls: list[ToolCall] = []
        self._logprobs: list[TokenLogprob] = []
        self._reason: FinishReason = "error"
        self._error: EspalierError | None = None

    @property
    def logprobs(self) -> int | None:
        """How many likeliest tokens are told beside each chosen one; None for no log-probabilities at all."""
        return self.sampler.spec.logprobs

    def add(self, token: int, told: Told | None = None) -> bool:
        """Take the next token; True when the answer ends with it."""
        self.work.tokens.append(token)
        self.sampler.note(token)
        ended = token in self._ends
        self._follow(token, told, ended)
        if self.done:  # nobody reads it, or its form cannot be followed
            return True
        if ended or (self._telling and self._telling.stopped) or (self._form and self._form.complete):
            self.end("stop")
        elif len(self.work.tokens) >= self.work.most_tokens:
            self.end("length")
        return self.done

    def end(self, reason: FinishReason) -> None:
        """Give out what was held back, then the finish reason and the usage; after the first time, nothing."""
        if self.done:
            return
        self.done = True
        if self._telling is not None:
            rest = self._telling.flush()
            reason = "tool_calls" if reason == "stop" and self._telling.called else reason
        else:
            answer = self.work.answer
            ended = bool(answer) and answer[-1] in self._ends
            rest = Piece(self._base.tokenizer.decode(answer[:-1] if ended else answer))
        self._reason = reason
        self._say(rest, reason)

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
            text="".join(self._text),
            finish_reason=self._reason,
            usage=self.usage(),
            token_ids=tuple(self.work.answer),
            logprobs=tuple(self._logprobs),
            tool_calls=tuple(self._calls),
        )

    def usage(self) -> Usage:
        """Tokens of this answer, so far."""
        work = self.work
        return Usage(
            prompt_tokens=work.prompt_tokens,
            completion_tokens=len(work.tokens) - work.prompt_tokens,
            cached_tokens=min(work.cached, work.prompt_tokens),
        )

    def _follow(self, token: int, told: Told | None, ended: bool) -> None:
        if self._form is not None:
            try:
                self._form.check() if ended else self._form.accept(token)
            except EspalierError as error:
                self.fail(error)
                return
        if ended:
            return
        if self._telling is not None:
            piece = self._telling.add(token, self._name(token, told) if told else None)
            if piece:
                self._say(piece)

    def _name(self, token: int, told: Told) -> TokenLogprob:
        backend = self._base.tokenizer.backend
        top = tuple(TokenLogprob(id, token_bytes(backend, id), logprob) for id, logprob in told[1])
        return TokenLogprob(token, token_bytes(backend, token), told[0], top)

    def _say(self, piece: Piece, reason: FinishReason | None = None) -> None:
        self._text.append(piece.text)
        self._calls += piece.calls
        self._logprobs += piece.logprobs
        if self._tell is None:
            return
        heard = self._tell(
            Delta(
                piece.text,
                reason,
                self.usage(),
                self.number,
                piece.logprobs,
                piece.calls,
                self.work.adapter if reason else None,
            )
        )
        if not heard and not self.done:
            self.fail(Unavailable("nobody reads this answer", hint="read it as it comes, or ask for fewer tokens"))


def tell_together(mailbox: Mailbox, tickets: Sequence[Ticket]) -> Tell:
    """How several answers to one request are told: each piece with the usage of all, the prompt counted once."""

    def tell(piece: Delta | EspalierError) -> bool:
        if isinstance(piece, Delta):
            usage = tickets[0].usage()
            written = sum(ticket.usage().completion_tokens for ticket in tickets)
            piece = replace(piece, usage=usage.model_copy(update={"completion_tokens": written}))
        return mailbox.put(piece)

    return tell
