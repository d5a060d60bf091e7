"""`ReviewSpec`: what people are asked of each example, and the parts of an example they see.

title: Are these answers right?
controls:
  - {kind: rating, name: quality, scale: 5}
  - {kind: label, name: topic, labels: [billing, delivery, other]}
  - {kind: span, name: entities, labels: [name, date], part: answer}
  - {kind: repair, name: repair}
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, field_validator

from espalier.core.types import Example, Message, Spec
from espalier.data.annotation.record import Part

_NAME = r"^[a-z][a-z0-9_]{0,39}$"


class RatingControl(Spec):
    """A mark from 1 to `scale`."""

    kind: Literal["rating"]
    name: str = Field("quality", pattern=_NAME, description="what is asked, as records name it")
    scale: int = Field(5, ge=2, le=100, description="the best mark")
    guide: str = Field("", description="what to go by, shown to whoever marks; a model is asked with it")


class LabelControl(Spec):
    """One of some labels, or several."""

    kind: Literal["label"]
    name: str = Field(pattern=_NAME, description="what is asked, as records name it")
    labels: tuple[str, ...] = Field(min_length=2, description="what may be chosen")
    multiple: bool = Field(False, description="several may apply")
    guide: str = Field("", description="what to go by")


class SpanControl(Spec):
    """Stretches of a text, each with a label."""

    kind: Literal["span"]
    name: str = Field(pattern=_NAME, description="what is asked, as records name it")
    labels: tuple[str, ...] = Field(min_length=1, description="what a stretch may be")
    part: Part = Field("answer", description="in which text: question, answer or text")
    guide: str = Field("", description="what to go by")


class PairwiseControl(Spec):
    """Which of two answers is better."""

    kind: Literal["pairwise"]
    name: str = Field("preference", pattern=_NAME, description="what is asked, as records name it")
    guide: str = Field("", description="what to go by")


class RepairControl(Spec):
    """What the answer should have said; filled in with what it says."""

    kind: Literal["repair"]
    name: str = Field("repair", pattern=_NAME, description="what is asked, as records name it")
    guide: str = Field("", description="what to go by")


Control = Annotated[
    RatingControl | LabelControl | SpanControl | PairwiseControl | RepairControl, Field(discriminator="kind")
]


class ReviewSpec(Spec):
    """What is asked of each example."""

    title: str = Field("", description="shown above each example")
    controls: tuple[Control, ...] = Field(
        (RatingControl(kind="rating"), RepairControl(kind="repair")), min_length=1, description="what is asked"
    )

    @field_validator("controls")
    @classmethod
    def _check_names(cls, controls: tuple[Control, ...]) -> tuple[Control, ...]:
        names = [control.name for control in controls]
        if len(set(names)) < len(names):
            raise ValueError("two controls have one name")
        if taken := set(names) & {"question", "answer", "text", "left", "right"}:
            raise ValueError(f"{min(taken)} is the name of a text")
        return controls


def parts_of(example: Example) -> dict[str, str]:
    """The texts of an example by their names: text; or question and answer; or question, left and right of a pair.

    Which answer of a pair stands left follows from a hash of its id: always left would be chosen more often.
    """
    if example.chosen:
        better, worse = (turns[-1].content if turns else "" for turns in (example.chosen, example.rejected))
        left, right = (better, worse) if left_of(example) == "chosen" else (worse, better)
        shown = example.messages or example.chosen[:-1]
        return {"question": _say(shown), "left": left, "right": right}
    if not example.messages:
        return {"text": example.text}
    if example.messages[-1].role == "assistant":
        return {"question": _say(example.messages[:-1]), "answer": example.messages[-1].content}
    return {"question": _say(example.messages), "answer": ""}


def left_of(example: Example) -> Literal["chosen", "rejected"]:
    """Which answer of a pair is shown left."""
    return "chosen" if hashlib.sha256(example.id.encode()).digest()[0] % 2 else "rejected"


def _say(turns: Sequence[Message]) -> str:
    if len(turns) == 1:
        return turns[0].content
    return "\n\n".join(f"{turn.role}: {turn.content}" for turn in turns)
