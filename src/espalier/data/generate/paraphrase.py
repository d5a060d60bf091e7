"""The last question of an example in other words, its answer kept; none that says the same, or loses a number."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from espalier.core.types import Example, Message, SamplingSpec
from espalier.data.generate.asking import Asker, Filled
from espalier.data.generate.forms import Paraphrases
from espalier.data.generate.overlap import Pool
from espalier.data.generate.row import Origin, Row, make_example
from espalier.data.generate.spec import ParaphraseMethod
from espalier.data.generate.templates import PromptVersion

_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")


def make_paraphrases(
    parents: Sequence[Example], method: ParaphraseMethod, prompt: PromptVersion, asker: Asker, sampling: SamplingSpec
) -> list[Row]:
    """Rows for every example, in order. One without a user turn before its answer is refused, not asked."""
    places = [_last_question(parent) for parent in parents]
    fit = [i for i, place in enumerate(places) if place is not None]
    asked = [
        prompt.fill({"input": parents[i].messages[place].content, "count": str(method.count)})
        for i in fit
        if (place := places[i]) is not None
    ]
    filled = dict(zip(fit, asker.fill(asked, sampling, Paraphrases, what="paraphrases"), strict=True))
    rows: list[Row] = []
    for i, parent in enumerate(parents):
        place = places[i]
        if place is None:
            origin = Origin("paraphrase", (parent.id,), prompt, asker.subject, sampling)
            rows.append(Row(origin, refused_because="no question: no user turn stands before an answer"))
        else:
            rows.extend(_read(parent, place, filled[i], prompt, asker, sampling, method))
    return rows


def _read(
    parent: Example,
    place: int,
    filled: Filled[Paraphrases],
    prompt: PromptVersion,
    asker: Asker,
    sampling: SamplingSpec,
    method: ParaphraseMethod,
) -> list[Row]:
    origin = Origin("paraphrase", (parent.id,), prompt, asker.subject, sampling, filled.reply.digest, filled.mended)
    if filled.form is None:
        return [Row(origin, refused_because=filled.reason)]
    if not filled.form.paraphrases:
        return [Row(origin, refused_because="no paraphrase: the model gave none")]
    original = parent.messages[place].content
    pool, rows = Pool(method.near, [original]), []
    for number, text in enumerate(filled.form.paraphrases):
        messages = [*parent.messages[:place], Message("user", text), *parent.messages[place + 1 :]]
        row = Row(origin, make_example(parent, "paraphrase", messages, number=number), source=original)
        row.refused_because = _judge(text, number, original, method, pool)
        if not row.refused_because:
            pool.add(text)
        rows.append(row)
    return rows


def _judge(text: str, number: int, original: str, method: ParaphraseMethod, pool: Pool) -> str:
    if number >= method.count:
        return f"more than asked for: number {number + 1} of {method.count}"
    if method.keep_numbers:
        lost = Counter(_NUMBER.findall(original)) - Counter(_NUMBER.findall(text))
        if lost:
            return f"number lost: {min(lost)}"
    like = pool.find_like(text)
    return f"near duplicate: ROUGE-L {like[1]:.2f} with {like[0]!r}" if like else ""


def _last_question(example: Example) -> int | None:
    """Where the last user turn stands, when an answer follows it."""
    turns = example.messages
    if len(turns) >= 2 and turns[-1].role == "assistant" and turns[-2].role == "user":
        return len(turns) - 2
    return None
