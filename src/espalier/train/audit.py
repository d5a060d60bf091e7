"""The mask audit: before the first step, what will carry loss, what was cut, what was dropped, and a sample to look at.

Most failed fine-tunes fail here, silently: a template that hides the answer, a context too short for it. So a dataset
that teaches nothing is refused, and one that teaches little is warned of. Knows no model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import xxhash

from espalier.core.errors import InvalidInput
from espalier.core.types import Example
from espalier.tokens.pack import Int32, Strip
from espalier.train import faults
from espalier.train.laying import Laid, Laying

MARK_OPEN, MARK_CLOSE = "⟦", "⟧"  # around what carries loss, in the sample

FIRST_IDS = 5  # examples named for each fault
MOST_REASONS = 30  # told apart; what a template says may differ for every example
FEW_EXAMPLES = 10  # of which a share says little
FEW_SUPERVISED, MUCH_TRUNCATED, ONE_ANSWER = 0.05, 0.2, 0.8  # shares from which there is a warning
_OTHERS = "other reasons"
_COMMON_ANSWERS = 256  # held at once while the commonest is looked for
_SHOWN_CHARS = 60

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True, slots=True)
class Fault:
    """How many examples had it, and the first of them."""

    count: int
    first: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MaskAudit:
    """What training will see of one dataset, or of a mix (`parts`).

    `sample` is one example as the model reads it, what carries loss between ⟦ and ⟧. Tokens are positions computed.
    """

    examples: int  # kept
    dropped: int  # from which nothing can be learnt
    truncated: int  # that lost their end, or all of their answer
    split: int  # cut in several pieces, nothing lost
    documents: int  # what is trained on: pieces count
    tokens: int
    supervised_tokens: int
    longest_tokens: int
    sample: str
    drops: Mapping[str, Fault] = field(default_factory=dict)
    notes: Mapping[str, Fault] = field(default_factory=dict)  # kept, yet odd
    first_truncated: tuple[str, ...] = ()
    commonest_answer: str = ""
    commonest_share: float = 0.0  # of the kept examples, at least
    name: str = ""  # which dataset of a mix; empty = the main one
    share: float = 1.0  # of the main dataset's tokens, each epoch
    parts: tuple[MaskAudit, ...] = ()  # one a dataset, where there are several

    @property
    def supervised_share(self) -> float:
        """Share of the kept tokens that carry loss."""
        return self.supervised_tokens / self.tokens if self.tokens else 0.0

    @property
    def warnings(self) -> list[str]:
        """What a person should look at before going on."""
        whose = f"{self.name}: " if self.name else ""
        told = [f"{whose}{line}" for line in self._own_warnings()] if not self.parts else []
        return [*told, *(line for part in self.parts for line in part.warnings)]

    def _own_warnings(self) -> Iterator[str]:
        seen = self.examples + self.dropped
        if self.supervised_share < FEW_SUPERVISED:
            yield f"only {self.supervised_share:.1%} of the tokens carry loss: most of the time goes into prompts"
        if self.truncated > MUCH_TRUNCATED * seen:
            yield (
                f"{self.truncated} of {seen} examples are cut where the context ends "
                f"({_list_first(self.first_truncated, self.truncated)}): raise `context_tokens`, or split"
            )
        if self.commonest_share >= ONE_ANSWER and self.examples >= FEW_EXAMPLES:
            yield f"at least {self.commonest_share:.0%} of the answers are the same: {self.commonest_answer!r}"
        for kept, table in (("dropped", self.drops), ("kept", self.notes)):
            for reason, fault in table.items():
                yield f"{fault.count} {kept}: {reason} ({_list_first(fault.first, fault.count)})"

    def to_json(self) -> dict[str, Any]:
        """For the event stream; `from_json` is its inverse."""
        return {**asdict(self), "supervised_share": self.supervised_share, "warnings": self.warnings}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> MaskAudit:
        """The audit that `to_json` told."""
        values = {name: told[name] for name in cls.__slots__ if name in told}
        for name in ("drops", "notes"):
            values[name] = {
                reason: Fault(fault["count"], tuple(fault["first"])) for reason, fault in values[name].items()
            }
        values["first_truncated"] = tuple(values["first_truncated"])
        values["parts"] = tuple(cls.from_json(part) for part in values["parts"])
        return cls(**values)


class Auditor:
    """Counts while examples are laid out by `laying`."""

    def __init__(self, laying: Laying, decode: Decode) -> None:
        self._show = laying.show or (lambda strip: mark_strip(strip, decode, laying.sequences))
        self._say = laying.answer or (lambda strip: decode(_answer(strip)[:_SHOWN_CHARS].tolist()))
        self.seen = self.kept = self.truncated = self.split = self.answered = 0
        self._documents = self._tokens = self._supervised = self._longest = 0
        self._sample = ""
        self._drops: dict[str, tuple[int, list[str]]] = {}
        self._notes: dict[str, tuple[int, list[str]]] = {}
        self.first_truncated: list[str] = []
        self._answers = _Commonest()

    @property
    def dropped(self) -> int:
        return self.seen - self.kept

    @property
    def drops(self) -> dict[str, Fault]:
        """Why examples were dropped, the commonest reason first."""
        return _freeze(self._drops)

    @property
    def tokens(self) -> int:
        return self._tokens

    def add(self, example: Example, laid: Laid) -> None:
        """What became of the next example."""
        self.seen += 1
        self.answered += bool(example.text or example.chosen) or any(m.role == "assistant" for m in example.messages)
        if laid.cut_tokens:
            self.truncated += 1
            if len(self.first_truncated) < FIRST_IDS:
                self.first_truncated.append(example.id)
        if not laid.strips:
            _note(self._drops, laid.dropped or faults.EMPTY, example.id)
            return
        if laid.note:
            _note(self._notes, laid.note, example.id)
        self.kept += 1
        self.split += len(laid.strips) > 1
        self._documents += len(laid.strips)
        for strip in laid.strips:
            self._tokens += len(strip)
            self._supervised += len(strip.rows)
            self._longest = max(self._longest, len(strip))
        self._answers.add(laid.strips[0])
        if not self._sample:
            self._sample = self._show(laid.strips[0])

    def finish(self, name: str = "") -> MaskAudit:
        """The whole of it."""
        commonest, count = self._answers.top()
        return MaskAudit(
            examples=self.kept,
            dropped=self.dropped,
            truncated=self.truncated,
            split=self.split,
            documents=self._documents,
            tokens=self._tokens,
            supervised_tokens=self._supervised,
            longest_tokens=self._longest,
            sample=self._sample,
            drops=self.drops,
            notes=_freeze(self._notes),
            first_truncated=tuple(self.first_truncated),
            commonest_answer=self._say(commonest).strip()[:_SHOWN_CHARS] if commonest else "",
            commonest_share=count / self.kept if self.kept else 0.0,
            name=name,
        )


def join_audits(parts: Sequence[MaskAudit]) -> MaskAudit:
    """The audit of a mix: sums over its datasets, the main one's sample."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    return MaskAudit(
        examples=sum(part.examples for part in parts),
        dropped=sum(part.dropped for part in parts),
        truncated=sum(part.truncated for part in parts),
        split=sum(part.split for part in parts),
        documents=sum(part.documents for part in parts),
        tokens=sum(part.tokens for part in parts),
        supervised_tokens=sum(part.supervised_tokens for part in parts),
        longest_tokens=max(part.longest_tokens for part in parts),
        sample=first.sample,
        commonest_answer=first.commonest_answer,
        commonest_share=first.commonest_share,
        parts=tuple(parts),
    )


_FOR_PAIRS = "take a method for pairs: `method: dpo`, `orpo` or `kto`"


def refuse_poor(auditor: Auditor, source: str, *, context_tokens: int) -> None:
    """Raise InvalidInput for a dataset that teaches nothing, or most of whose examples are bad, saying why."""
    if not auditor.kept:
        raise _nothing_to_learn(auditor, context_tokens)
    if 2 * auditor.dropped > auditor.seen:
        mostly_pairs = faults.PAIR in auditor.drops and 2 * auditor.drops[faults.PAIR].count > auditor.dropped
        mend = "mend the dataset, or filter these examples out where it is built; a few would merely be dropped"
        raise InvalidInput(
            f"{auditor.dropped} of {auditor.seen} examples of {source} teach nothing: {tell_drops(auditor.drops)}",
            hint=_FOR_PAIRS if mostly_pairs else mend,
        )


def tell_drops(drops: Mapping[str, Fault]) -> str:
    """`12 every answer is empty (a, b ...); 3 no assistant's turn (c, d, e)`"""
    return "; ".join(
        f"{fault.count} {reason} ({_list_first(fault.first, fault.count)})" for reason, fault in drops.items()
    )


def mark_strip(strip: Strip, decode: Decode, sequences: Sequence[str] = ()) -> str:
    """The strip's text with its loss-bearing stretches between ⟦ and ⟧; a branching one's answers each on its own.

    sequences: what the branches are called.
    """
    if len(strip.segments) <= 1 and not strip.sequences.any():
        ids = np.append(strip.ids, strip.targets[-1:] if _looks_beyond(strip) else strip.targets[:0])
        weights = np.zeros(len(ids), np.float32)
        inside = strip.rows + 1 < len(ids)
        weights[strip.rows[inside] + 1] = strip.weights[inside]
        return _mark(ids, weights, decode)
    prompt_end = int(strip.segments[:, 3].max(initial=0)) or int(strip.segments[0, 1])
    parts = [decode(strip.ids[:prompt_end].tolist())]
    for number in range(int(strip.sequences.max(initial=-1)) + 1):
        mine = strip.sequences == number
        name = sequences[number] if number < len(sequences) else f"answer {number + 1}"
        parts.append(f"\n[{name}] {_mark(*_branch(strip, mine, prompt_end), decode)}")
    return "".join(parts)


def _looks_beyond(strip: Strip) -> bool:
    """Whether the last row predicts a token that is itself not computed."""
    return len(strip.rows) > 0 and int(strip.rows[-1]) == len(strip) - 1


def _branch(strip: Strip, mine: Any, prompt_end: int) -> tuple[Any, Any]:
    """The ids (n,) of one answer, and the loss weight of each."""
    rows, targets, weights = strip.rows[mine], strip.targets[mine], strip.weights[mine]
    own = rows[rows >= prompt_end]
    at = int(own[0]) if len(own) else -1
    start, end = next(((int(s[0]), int(s[1])) for s in strip.segments if s[0] <= at < s[1]), (prompt_end, prompt_end))
    ids = strip.ids[start:end]
    if len(targets):
        ids = np.append(ids, targets[-1]) if not len(own) or own[-1] == end - 1 else ids
    places = np.where(rows < prompt_end, 0, rows - start + 1)
    marked = np.zeros(max(len(ids), 1), np.float32)
    marked[np.minimum(places, len(marked) - 1)] = weights
    return ids, marked[: len(ids)]


def _mark(ids: Any, weights: Any, decode: Decode) -> str:
    parts: list[str] = []
    start = 0
    for end in range(1, len(ids) + 1):
        if end < len(ids) and (weights[end] > 0) == (weights[start] > 0):
            continue
        text = decode(ids[start:end].tolist())
        parts.append(f"{MARK_OPEN}{text}{MARK_CLOSE}" if weights[start] > 0 else text)
        start = end
    return "".join(parts)


class _Commonest:
    """The answer given most often, found in bounded memory (Misra and Gries 1982): its count is a lower bound."""

    def __init__(self) -> None:
        self._counts: dict[bytes, int] = {}
        self._strips: dict[bytes, Strip] = {}

    def add(self, strip: Strip) -> None:
        key = xxhash.xxh3_128_digest(np.ascontiguousarray(_answer(strip)).tobytes())
        if key in self._counts:
            self._counts[key] += 1
        elif len(self._counts) < _COMMON_ANSWERS:
            self._counts[key] = 1
            self._strips[key] = strip
        else:
            self._counts = {key: count - 1 for key, count in self._counts.items() if count > 1}
            self._strips = {key: self._strips[key] for key in self._counts}

    def top(self) -> tuple[Strip | None, int]:
        key = max(self._counts, key=lambda key: self._counts[key], default=b"")
        return self._strips.get(key), self._counts.get(key, 0)


def _answer(strip: Strip) -> Int32:
    """The targets of a strip's first sequence."""
    found: Int32 = strip.targets[strip.sequences == 0]
    return found


def _list_first(first: Sequence[str], count: int) -> str:
    """`a, b, c ...`"""
    return ", ".join(first) + (" ..." if count > len(first) else "")


def _note(table: dict[str, tuple[int, list[str]]], reason: str, id: str) -> None:
    known = reason if reason in table or len(table) < MOST_REASONS else _OTHERS
    count, first = table.get(known, (0, []))
    table[known] = (count + 1, [*first, id] if len(first) < FIRST_IDS else first)


def _freeze(table: Mapping[str, tuple[int, list[str]]]) -> dict[str, Fault]:
    ordered = sorted(table.items(), key=lambda item: (-item[1][0], item[0]))
    return {reason: Fault(count, tuple(first)) for reason, (count, first) in ordered}


def _nothing_to_learn(auditor: Auditor, context_tokens: int) -> InvalidInput:
    seen = auditor.seen
    if not seen:
        return InvalidInput("the dataset has no training example", hint="look at its split: `espalier data show`")
    if faults.PAIR in auditor.drops and auditor.drops[faults.PAIR].count == auditor.dropped:
        return InvalidInput(
            f"all {seen} examples are preference pairs, which have no answer of their own to learn",
            hint=_FOR_PAIRS,
        )
    if not auditor.answered:
        return InvalidInput(
            f"none of {seen} examples has an assistant's turn, so there is nothing to learn",
            hint="each example needs a message with role `assistant`, or a `text`",
        )
    if auditor.truncated == seen:
        return InvalidInput(
            f"all {seen} examples are cut off before their answer at {context_tokens} tokens",
            hint="raise `context_tokens`, or shorten the prompts",
        )
    return InvalidInput(
        f"none of {seen} examples has a token that carries loss: {tell_drops(auditor.drops)}",
        hint="give the answers text, and a weight above 0",
    )
