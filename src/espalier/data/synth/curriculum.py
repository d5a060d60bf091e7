"""The pretraining curriculum of the small base model: copying first, then keys and formats, then long extraction.

A model of a few million parameters learns to point before it learns to read: copying comes early and never stops, and
each later stage leans on the one before. No example is ever made twice on purpose, and none is in the house schema of
the demo. Knows no tokenizer and no model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pydantic import Field

from espalier.core.types import Example, Message, Spec
from espalier.data.synth import pointing, reading
from espalier.data.synth.asking import Desk, Task
from espalier.data.synth.draw import Draw, Weighted
from espalier.data.synth.english import English, read_english

_TASKS: dict[str, Callable[[Desk], Task]] = {
    "copy": pointing.copy,
    "copy_long": pointing.copy_long,
    "pick_item": pointing.pick_item,
    "look_up": pointing.look_up,
    "convert": pointing.convert,
    "quote": pointing.quote,
    "follow": pointing.follow,
    "find": reading.find,
    "small_talk": reading.small_talk,
    "classify": reading.classify,
    "classify_many": reading.classify_many,
    "extract": reading.extract,
    "combine": reading.combine,
    "fill": reading.fill,
    "name_intent": reading.name_intent,
    "answer": reading.answer,
}
_READING = "reading"  # plain English, as `text`: no question, no answer
_NEEDS_ENGLISH = {"name_intent": "intents", "answer": "answers", _READING: "passages"}

STAGES: tuple[dict[str, float], ...] = (
    {
        "copy": 22, "copy_long": 24, "pick_item": 6, "look_up": 14, "quote": 6, "follow": 4, "convert": 6, "find": 5,
        "classify": 6, "small_talk": 2, "reading": 4, "name_intent": 1,
    },
    {
        "copy": 5, "copy_long": 7, "pick_item": 3, "look_up": 9, "quote": 4, "follow": 7, "convert": 15, "find": 9,
        "classify": 10, "classify_many": 5, "extract": 8, "combine": 4, "fill": 5, "small_talk": 2, "name_intent": 3,
        "answer": 1, "reading": 5,
    },
    {
        "copy": 2, "copy_long": 3, "pick_item": 1, "look_up": 2, "quote": 1, "follow": 5, "convert": 4, "find": 5,
        "classify": 14, "classify_many": 8, "extract": 8, "combine": 16, "fill": 26, "small_talk": 1, "name_intent": 2,
        "answer": 1, "reading": 2,
    },
)  # fmt: skip


class CurriculumSpec(Spec):
    """How much to make. `shares` is the part of all examples in each stage, in order; it sums to 1.

    A shard of a bigger curriculum is the same spec with another seed.
    """

    seed: int = 0
    examples: int = Field(default=200_000, ge=1)  # about 150 tokens each
    shares: tuple[float, float, float] = (0.2, 0.3, 0.5)


def generate_curriculum(spec: CurriculumSpec, corpora: Sequence[Path] = ()) -> Iterator[Example]:
    """Yields `spec.examples` examples in the order they are to be learnt, tagged with `kind` and `stage`.

    `corpora` are folders that hold public corpora, one folder each (see `english`); without any, all is made up.
    The same spec and corpora give the same examples, byte for byte.
    """
    desk = Desk(Draw(f"curriculum {spec.seed}"), read_english(corpora))
    mixes = [Weighted(_possible(mix, desk.english)) for mix in STAGES]
    first_of_second = round(spec.examples * spec.shares[0])
    first_of_third = round(spec.examples * (spec.shares[0] + spec.shares[1]))
    for number in range(spec.examples):
        stage = 1 + (number >= first_of_second) + (number >= first_of_third)
        kind = desk.draw.weighted(mixes[stage - 1])
        yield _make(desk, kind, f"curriculum-{spec.seed}-{number}", stage)


def _possible(mix: dict[str, float], english: English) -> dict[str, float]:
    """`mix` without the kinds whose corpus was not found."""
    return {
        kind: weight
        for kind, weight in mix.items()
        if kind not in _NEEDS_ENGLISH or getattr(english, _NEEDS_ENGLISH[kind])
    }


def _make(desk: Desk, kind: str, example_id: str, stage: int) -> Example:
    tags = {"kind": kind, "stage": str(stage)}
    if kind == _READING:
        return Example(id=example_id, text=desk.draw.pick(desk.english.passages), tags=tags)
    question, reply = _TASKS[kind](desk)
    system = [Message("system", desk.draw.pick(_SYSTEMS))] if desk.draw.chance(0.1) else []
    return Example(id=example_id, messages=[*system, Message("user", question), Message("assistant", reply)], tags=tags)


_SYSTEMS = (
    "You are a careful assistant.",
    "Answer with the result only.",
    "You read files of a service desk.",
    "You fill in forms. Write nothing else.",
    "Be exact. Copy names and numbers as they are.",
    "You help the staff of a small firm.",
)
