"""Examples -> strips: what a model reads of each, which tokens carry loss, and what becomes of one that is too long.

A `Laying` is how one method does it. The two here serve fine-tuning on answers and continued pre-training; a method
with a layout of its own (pairs, labels) gives a function of one example to `lay_each`. Pure: the same examples give
the same strips. Knows tokenizers and templates; knows no file and no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np

from espalier.core.errors import InvalidInput
from espalier.core.types import Example, Message
from espalier.tokens.mask import TRAINING_DAY, EncodeAll, Ids, Supervised, Weights, supervise_all
from espalier.tokens.pack import Strip
from espalier.tokens.tokenizer import ChatTokenizer
from espalier.train import faults

Overlong: TypeAlias = Literal["truncate", "split", "refuse"]


@dataclass(frozen=True, slots=True)
class Laid:
    """What became of one example."""

    strips: tuple[Strip, ...] = ()  # several where it was split, none where it was dropped
    dropped: str = ""  # why it trains nothing, without its particulars, so that reasons can be counted
    cut_tokens: int = 0  # lost because the context ended
    note: str = ""  # kept, yet odd; without particulars, too


@dataclass(frozen=True, slots=True)
class Laying:
    """How examples become strips. `tag` names the way and every setting that changes the outcome but the tokenizer."""

    tag: str
    lay: Callable[[Sequence[Example]], Sequence[Laid]]
    show: Callable[[Strip], str] | None = None  # an example for a person to look at; None = its text, marked
    sequences: tuple[str, ...] = ()  # what the sequences of a strip are called: chosen, rejected
    answer: Callable[[Strip], str] | None = None  # what is learnt of a strip, in words; None = its targets as text


def lay_each(
    tag: str,
    lay: Callable[[Example], Laid],
    show: Callable[[Strip], str] | None = None,
    sequences: tuple[str, ...] = (),
    answer: Callable[[Strip], str] | None = None,
) -> Laying:
    """A laying that takes examples one by one; an example for which `lay` raises InvalidInput is dropped, saying so."""

    def lay_all(examples: Sequence[Example]) -> list[Laid]:
        return [_try(lay, example) for example in examples]

    return Laying(tag, lay_all, show, sequences, answer)


def answers(tokenizer: ChatTokenizer, *, context_tokens: int, overlong: Overlong = "truncate") -> Laying:
    """Loss on the assistant's turns (or their own weights); raw text is learnt whole.

    `lay` raises InvalidInput for a base that has no chat template, or no token that ends an answer.
    """
    texts = _Texts(tokenizer, context_tokens, overlong)
    return Laying(f"answers/2/{context_tokens}/{overlong}", texts.lay_answers)


def every_token(tokenizer: ChatTokenizer, *, context_tokens: int, overlong: Overlong = "truncate") -> Laying:
    """Loss on every token but the first, of raw text and of conversations as the template renders them."""
    texts = _Texts(tokenizer, context_tokens, overlong)
    return Laying(f"every_token/2/{context_tokens}/{overlong}", texts.lay_whole)


def lay_ids(id: str, ids: Ids, weights: Weights) -> Strip:
    """A plain document (n,), as `tokens.pack.lay` lays it out, without a Python number a token. n >= 2"""
    rows = np.flatnonzero(weights[1:]).astype(np.int32)
    length = len(ids) - 1
    return Strip(
        id,
        ids[:-1].astype(np.int32),
        np.arange(length, dtype=np.int32),
        np.array([[0, length, 0, 0]], np.int32),
        rows,
        ids[rows + 1].astype(np.int32),
        weights[rows + 1].astype(np.float32),
        np.zeros(len(rows), np.int32),
    )


def encode_fast(tokenizer: ChatTokenizer) -> EncodeAll:
    """The batch encoder of a tokenizer: the same ids as its `encode`, many texts at once."""
    import pyarrow as pa

    from espalier.tokens.fast import load_fast_tokenizer

    fast = load_fast_tokenizer(tokenizer.backend)

    def encode_all(texts: Sequence[str]) -> list[Ids]:
        lists = fast.encode(pa.array(texts, pa.large_string()))
        return [lists.values.to_numpy()[start:end] for start, end in pairwise(lists.offsets.to_numpy())]

    return encode_all


class _Texts:
    """Plain documents of one tokenizer and one context."""

    def __init__(self, tokenizer: ChatTokenizer, context_tokens: int, overlong: Overlong) -> None:
        self._tokenizer, self._context, self._splits = tokenizer, context_tokens, overlong == "split"
        added = tokenizer.backend.get_added_tokens_decoder()
        special = {number: token.content for number, token in added.items() if token.special}
        self._marks = faults.Marks(special.values())
        self._mark_ids = list(special)
        self._end, self._opening = tokenizer.eos_id, tokenizer.opening
        self._encoder: EncodeAll | None = None
        self._ends_answers = self._end is not None

    def lay_answers(self, examples: Sequence[Example]) -> list[Laid]:
        laid = [Laid(dropped=faults.find_fault(example, self._marks)) for example in examples]
        chats = [n for n, example in enumerate(examples) if example.messages and not laid[n].dropped]
        texts = [n for n, example in enumerate(examples) if not example.messages and not laid[n].dropped]
        stilled = [faults.still_blanks(examples[n].messages) for n in chats]
        self._require_template(bool(chats))
        supervised = supervise_all(self._tokenizer, [messages for messages, _ in stilled], self._encode)
        for n, (messages, note), found in zip(chats, stilled, supervised, strict=True):
            laid[n] = self._lay_chat(examples[n].id, messages, found, note)
        for n, ids in zip(texts, self._encode([examples[n].text for n in texts]), strict=True):
            laid[n] = self._lay_text(examples[n].id, self._close(ids))
        return laid

    def lay_whole(self, examples: Sequence[Example]) -> list[Laid]:
        self._require_template(any(example.messages for example in examples))
        written = [_try_text(self._tokenizer, example) for example in examples]
        encoded = iter(self._encode([text for text in written if isinstance(text, str)]))
        laid = []
        for example, text in zip(examples, written, strict=True):
            if isinstance(text, Laid):
                laid.append(text)
            else:
                ids = next(encoded)
                laid.append(self._lay_text(example.id, ids if example.messages else self._close(ids)))
        return laid

    def _encode(self, texts: Sequence[str]) -> Sequence[Ids]:
        if self._encoder is None:
            self._encoder = encode_fast(self._tokenizer)
        return self._encoder(texts) if texts else []

    def _close(self, ids: Ids) -> Ids:
        """Raw text with what the tokenizer puts before any text, and the end token, as far as the model has them."""
        if not len(ids):
            return ids
        end = [] if self._end is None else [self._end]
        return np.concatenate([np.asarray(part, np.int32) for part in (self._opening, ids, end)])

    def _lay_text(self, id: str, ids: Ids) -> Laid:
        weights = np.ones(len(ids), np.float32)
        weights[:1] = 0
        if len(ids) < 2:
            return Laid(dropped=faults.TOO_SHORT)
        if len(ids) <= self._context or not self._splits:
            return self._cut(id, (ids, weights))
        # Each piece begins with the token the one before ends on, which is there to be predicted and here to read:
        # so every token is read once and predicted once.
        starts = range(0, len(ids) - 1, self._context - 1)
        pieces = [(ids[at : at + self._context], weights[: len(ids[at : at + self._context])]) for at in starts]
        return Laid(tuple(lay_ids(_name(id, number), *piece) for number, piece in enumerate(pieces)))

    def _lay_chat(
        self, id: str, messages: Sequence[Message], found: list[Supervised] | InvalidInput, note: str
    ) -> Laid:
        if isinstance(found, InvalidInput):
            return Laid(dropped=faults.name_refusal(found.message))
        for ids, _ in found[:1]:
            self._require_end(ids)
        laid = self._cut_all(id, found, note)
        return self._split_chat(id, messages, note) if laid.cut_tokens and self._splits else laid

    def _cut_all(self, id: str, documents: Sequence[Supervised], note: str = "") -> Laid:
        """The documents of one conversation: one, or several where its template rewrites earlier turns."""
        if len(documents) == 1:
            return self._cut(id, documents[0], note)
        return _gather(id, [self._cut("", document) for document in documents], note)

    def _cut(self, id: str, supervised: Supervised, note: str = "") -> Laid:
        """One strip, up to the last token that carries loss, or as far as the context goes."""
        ids, weights = supervised
        end = _last(weights)
        kept = min(end, self._context)
        kept = min(kept, _last(weights[:kept]))
        if kept < 2:
            return Laid(dropped=faults.CUT_BEFORE_ANSWER, cut_tokens=max(0, end - self._context))
        return Laid((lay_ids(id, ids[:kept], weights[:kept]),), cut_tokens=max(0, end - self._context), note=note)

    def _split_chat(self, id: str, messages: Sequence[Message], note: str) -> Laid:
        """Pieces that end with an answer, each with the system's turns; an exchange that fits nowhere loses its end."""
        system, exchanges = _exchanges(messages)
        pieces: list[Laid] = []
        waiting: list[Message] = []
        for exchange in exchanges:
            if waiting and not self._fits([*system, *waiting, *exchange]):
                pieces.append(self._lay_piece([*system, *waiting]))
                waiting = []
            waiting += exchange
        pieces.append(self._lay_piece([*system, *waiting]))
        return _gather(id, pieces, note)

    def _lay_piece(self, messages: list[Message]) -> Laid:
        found = supervise_all(self._tokenizer, [messages], self._encode)[0]
        if isinstance(found, InvalidInput):
            return Laid(dropped=faults.name_refusal(found.message))
        return self._cut_all("", found) if found else Laid()

    def _fits(self, messages: list[Message]) -> bool:
        found = supervise_all(self._tokenizer, [messages], self._encode)[0]
        return not isinstance(found, InvalidInput) and all(_last(weights) <= self._context for _, weights in found)

    def _require_template(self, chats: bool) -> None:
        if chats and not self._tokenizer.template:
            raise InvalidInput(
                "this base has no chat template, so its training cannot read messages",
                hint="take the chat (instruct) version of the base, put a chat_template.jinja beside its tokenizer, "
                "or give raw text",
            )

    def _require_end(self, ids: Ids) -> None:
        """Without a token at an answer's end a tuned model never stops. Asked of the first conversation."""
        if self._ends_answers:
            return
        if not np.isin(ids[-1:], self._mark_ids).any() and not np.isin(ids[-2:], self._mark_ids).any():
            raise InvalidInput(
                "this base's tokenizer names no end token and its chat template writes none after an answer, "
                "so a tuned model would never stop",
                hint="name an eos_token in tokenizer_config.json, or end turns with a special token in the template",
            )
        self._ends_answers = True


def _try(lay: Callable[[Example], Laid], example: Example) -> Laid:
    try:
        return lay(example)
    except InvalidInput as error:
        return Laid(dropped=faults.name_refusal(error.message))


def _try_text(tokenizer: ChatTokenizer, example: Example) -> str | Laid:
    """All that an example says, as text."""
    if not example.messages:
        return example.text if example.text.strip() else Laid(dropped=faults.EMPTY)
    try:
        return tokenizer.render(example.messages, on=TRAINING_DAY)
    except InvalidInput as error:
        return Laid(dropped=faults.name_refusal(error.message))


def _gather(id: str, pieces: Sequence[Laid], note: str) -> Laid:
    """Several pieces of one example as what became of it."""
    strips = [strip for piece in pieces for strip in piece.strips]
    named = [_renamed(strip, _name(id, number)) for number, strip in enumerate(strips)]
    dropped = "" if strips else next((piece.dropped for piece in pieces if piece.dropped), faults.CUT_BEFORE_ANSWER)
    return Laid(tuple(named), dropped, sum(piece.cut_tokens for piece in pieces), note)


def _exchanges(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """The system's turns at the start, and what follows, cut before each user's turn that follows another role's."""
    start = next((n for n, turn in enumerate(messages) if turn.role != "system"), len(messages))
    exchanges: list[list[Message]] = []
    for turn in messages[start:]:
        if not exchanges or (turn.role == "user" and exchanges[-1][-1].role != "user"):
            exchanges.append([])
        exchanges[-1].append(turn)
    return list(messages[:start]), exchanges


def _last(weights: Weights) -> int:
    """How many tokens there are up to and with the last that carries loss."""
    places = np.flatnonzero(weights > 0)
    return int(places[-1]) + 1 if len(places) else 0


def _name(id: str, number: int) -> str:
    """What the pieces of a split document are called: doc, doc#2, doc#3 ..."""
    return f"{id}#{number + 1}" if number else id


def _renamed(strip: Strip, id: str) -> Strip:
    return Strip(
        id, strip.ids, strip.positions, strip.segments, strip.rows, strip.targets, strip.weights, strip.sequences,
        strip.extras,
    )  # fmt: skip
