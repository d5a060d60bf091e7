"""Question and answer pairs from passages, kept only where the quotation that proves them stands in the passage."""

from __future__ import annotations

import re
from collections.abc import Sequence

from espalier.core.types import Example, Message, SamplingSpec
from espalier.data.generate.asking import Asker, Filled
from espalier.data.generate.forms import Pair, Pairs
from espalier.data.generate.overlap import Pool, words_of
from espalier.data.generate.row import Origin, Row, make_example
from espalier.data.generate.spec import QuestionsMethod
from espalier.data.generate.templates import PromptVersion

_SPACE = re.compile(r"\s+")


def make_questions(
    parents: Sequence[Example], method: QuestionsMethod, prompt: PromptVersion, asker: Asker, sampling: SamplingSpec
) -> list[Row]:
    """Rows for every passage, in order: the pairs that came, or one refused row that says why none did.

    A passage is an example's text, or its last user turn. Questions of one passage must differ in more than a word;
    those of two passages may be alike ("When did it open?"), but the same question twice has one answer too many.
    """
    passages = [passage_of(parent) for parent in parents]
    fit = [i for i, passage in enumerate(passages) if not _unfit(passage, method)]
    asked = [prompt.fill({"passage": passages[i], "count": str(method.per_passage)}) for i in fit]
    filled = dict(zip(fit, asker.fill(asked, sampling, Pairs, what="passages"), strict=True))
    rows: list[Row] = []
    seen: set[tuple[str, ...]] = set()
    for i, parent in enumerate(parents):
        if i not in filled:
            origin = Origin("questions", (parent.id,), prompt, asker.subject, sampling)
            rows.append(Row(origin, refused_because=_unfit(passages[i], method)))
            continue
        answered = filled[i]
        origin = Origin(
            "questions", (parent.id,), prompt, asker.subject, sampling, answered.reply.digest, answered.mended
        )
        rows.extend(_read_pairs(parent, passages[i], answered, origin, method, seen))
    return rows


def passage_of(example: Example) -> str:
    """The text questions are asked about."""
    if example.text:
        return example.text
    return next((turn.content for turn in reversed(example.messages) if turn.role == "user"), "")


def stands_in(quote: str, passage: str) -> bool:
    """Whether a quotation stands in a passage word for word; white space and letter case aside."""
    return _fold(quote) in _fold(passage)


def _read_pairs(
    parent: Example,
    passage: str,
    answered: Filled[Pairs],
    origin: Origin,
    method: QuestionsMethod,
    seen: set[tuple[str, ...]],
) -> list[Row]:
    if answered.form is None:
        return [Row(origin, refused_because=answered.reason)]
    if not answered.form.pairs:
        return [Row(origin, refused_because="no question: the model found none")]
    rows, pool = [], Pool(method.near)
    for number, pair in enumerate(answered.form.pairs):
        question = f"{passage}\n\n{pair.question}" if method.with_passage else pair.question
        messages = [Message("user", question), Message("assistant", pair.answer)]
        row = Row(
            origin,
            make_example(parent, "questions", messages, number=number),
            source=passage,
            details={"generate.quote": pair.quote},
        )
        words = tuple(words_of(pair.question))
        row.refused_because = _judge_pair(pair, number, passage, method, pool)
        if not row.refused_because and words in seen:
            row.refused_because = "asked before: another passage has the same question"
        if not row.refused_because:
            pool.add(pair.question)
            seen.add(words)
        rows.append(row)
    return rows


def _judge_pair(pair: Pair, number: int, passage: str, method: QuestionsMethod, pool: Pool) -> str:
    if number >= method.per_passage:
        return f"more than asked for: number {number + 1} of {method.per_passage}"
    if not stands_in(pair.quote, passage):
        return f"not grounded: the passage does not say {pair.quote!r}"
    like = pool.find_like(pair.question)
    return f"near duplicate: ROUGE-L {like[1]:.2f} with {like[0]!r}" if like else ""


def _unfit(passage: str, method: QuestionsMethod) -> str:
    if len(passage) < method.min_chars:
        return f"passage too short: {len(passage)} characters"
    return f"passage too long: {len(passage)} characters" if len(passage) > method.max_chars else ""


def _fold(text: str) -> str:
    return _SPACE.sub(" ", text).strip().casefold()
