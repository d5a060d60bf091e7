"""Annotations applied to a version: answers mended, poor rows left out, labels as tags, preferences turned round.

Several annotators are settled to one word first (`rule`):

    majority       what most said last; a rating's middle value; a draw settles nothing
    gold           what an adjudicator said (`gold`); nothing else counts
    adjudicated    what an adjudicator said, else what all the others agree on
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import Field

from espalier.core.types import Example, Message, Spec
from espalier.data.annotation.record import (
    AnnotationRecord,
    Labels,
    Preference,
    Rating,
    Repair,
    Spans,
    Value,
    keep_newest,
)
from espalier.data.annotation.report import say
from espalier.data.derived import Exclusion

Rule = Literal["majority", "gold", "adjudicated"]


class ApplySpec(Spec):
    """What annotators' word does to the rows of a version."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", description="name of the dataset the new version is of")
    description: str = Field("", description="one line for the card")
    licence: str = Field("", description="SPDX id or a sentence; those who annotated may have a say in it")
    rule: Rule = Field("majority", description="whose word counts: majority, gold or adjudicated")
    least_rating: dict[str, int] = Field({}, description="question: rows rated below this are left out")
    leave_out: dict[str, tuple[str, ...]] = Field(
        {}, description="question: rows with one of these labels are left out"
    )
    tag: tuple[str, ...] = Field((), description="questions whose labels, ratings or spans become tags")
    repair: str = Field("repair", description="question whose text replaces the answer; empty = none")
    preference: str = Field("preference", description="question that says which of a pair is better; empty = none")
    undecided: Literal["keep", "leave_out"] = Field("keep", description="rows on which annotators could not be settled")
    unseen: Literal["keep", "leave_out"] = Field("keep", description="rows that nobody annotated")

    @property
    def questions(self) -> set[str]:
        """Those whose answer changes something."""
        asked = {*self.least_rating, *self.leave_out, *self.tag, self.repair, self.preference}
        return asked - {""}


@dataclass(frozen=True, slots=True)
class Settled:
    """One word for a question, or none; of how many annotators, how many said it."""

    value: Value | None
    annotators: int
    agreeing: int
    gold: bool = False

    def __str__(self) -> str:
        return "gold" if self.gold else f"{self.agreeing} of {self.annotators}"


@dataclass(slots=True)
class Applied:
    """The new version's rows, what was left out, and how many rows each thing happened to."""

    examples: list[Example] = field(default_factory=list)
    exclusions: list[Exclusion] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def apply_annotations(examples: Iterable[Example], records: Iterable[AnnotationRecord], spec: ApplySpec) -> Applied:
    """The rows in order, changed or left out by what their annotators said last. Ids stay: it is the same example."""
    said: dict[str, dict[str, list[AnnotationRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in keep_newest(records):
        if record.question in spec.questions:
            said[record.example][record.question].append(record)
    found = Applied()
    for example in examples:
        asked = said.get(example.id, {})
        settled = {question: settle(asked[question], spec.rule) for question in sorted(asked)}
        reason = _why_left_out(settled, spec)
        if reason:
            found.counts["left_out"] += 1
            found.exclusions.append(Exclusion(example.id, (example.id,), reason, _text_of(example)))
        else:
            found.examples.append(_change(example, settled, spec, found.counts))
    return found


def settle(records: Sequence[AnnotationRecord], rule: Rule) -> Settled:
    """One word of several annotators on one question of one example."""
    gold = [record.value for record in records if record.gold]
    if gold and rule != "majority":
        newest = max((record for record in records if record.gold), key=lambda record: (record.at_ms, record.id))
        return Settled(newest.value, len(records), len(gold), gold=True)
    values = [record.value for record in records]
    if rule == "gold":
        return Settled(None, len(values), 0)
    if rule == "majority" and all(isinstance(value, Rating) for value in values):
        ordered = sorted((value for value in values if isinstance(value, Rating)), key=lambda value: value.value)
        middle = ordered[(len(ordered) - 1) // 2]
        return Settled(middle, len(values), ordered.count(middle))
    ranked = Counter(say(value) for value in values).most_common()
    word, times = ranked[0]
    decided = times == len(values) if rule == "adjudicated" else len(ranked) == 1 or times > ranked[1][1]
    value = next(value for value in values if say(value) == word)
    return Settled(value if decided else None, len(values), times)


def _why_left_out(settled: dict[str, Settled], spec: ApplySpec) -> str:
    """The first reason to leave a row out, or nothing."""
    if not settled:
        return "not annotated" if spec.unseen == "leave_out" else ""
    for question, each in settled.items():
        value = each.value
        if value is None:
            if spec.undecided == "leave_out":
                return f"undecided: {question}, {each}"
        elif isinstance(value, Rating) and value.value < spec.least_rating.get(question, 1):
            return f"rated below {spec.least_rating[question]}: {question} {value.value} of {value.scale}, {each}"
        elif isinstance(value, Labels) and (bad := set(value.labels) & set(spec.leave_out.get(question, ()))):
            return f"labelled {min(bad)}: {question}, {each}"
        elif isinstance(value, Preference) and question == spec.preference and value.better == "tie":
            return f"no preference: {each}"
    return ""


def _change(example: Example, settled: dict[str, Settled], spec: ApplySpec, counts: Counter[str]) -> Example:
    tags = dict(example.tags)
    for question, each in settled.items():
        tags[f"annotations.{question}"] = str(each)
        if each.value is None:
            counts["undecided"] += 1
        elif question in spec.tag:
            tags[f"label.{question}"] = _write(each.value)
            counts["labelled"] += 1
    changed = replace(example, tags=tags)
    repair = settled[spec.repair].value if spec.repair in settled else None
    if isinstance(repair, Repair) and repair.text != _answer_of(changed):
        changed = _mend(changed, repair.text)
        counts["repaired"] += 1
    preference = settled[spec.preference].value if spec.preference in settled else None
    if isinstance(preference, Preference) and preference.better == "rejected" and changed.chosen:
        changed = replace(changed, chosen=changed.rejected, rejected=changed.chosen)
        counts["turned_round"] += 1
    return changed


def _mend(example: Example, text: str) -> Example:
    tags = {**example.tags, "annotations.repaired": "yes"}
    if not example.messages:
        return replace(example, text=text, tags=tags)
    last = example.messages[-1]
    if last.role == "assistant":
        return replace(example, messages=[*example.messages[:-1], replace(last, content=text)], tags=tags)
    return replace(example, messages=[*example.messages, Message("assistant", text)], tags=tags)


def _answer_of(example: Example) -> str:
    return example.messages[-1].content if example.messages else example.text


def _text_of(example: Example) -> str:
    turns = [*example.messages, *example.chosen[-1:], *example.rejected[-1:]]
    return "\n".join([*(turn.content for turn in turns), example.text]).strip()


def _write(value: Value) -> str:
    if isinstance(value, Spans):
        return json.dumps([span.model_dump() for span in value.spans], ensure_ascii=False)
    return str(say(value))
