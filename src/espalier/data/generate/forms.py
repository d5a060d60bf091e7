"""What a model is asked to answer in, and how strictly it is read: one JSON object of a known form, or nothing.

An answer in no such form is asked for once more, told what was wrong; after that it is dropped with the reason. Nothing
is ever guessed from it.
"""

from __future__ import annotations

import re
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from espalier.core.types import Generation, Message

_FENCE = re.compile(r"\A\s*```(?:json)?[ \t]*\n(.*)\n\s*```\s*\Z", re.DOTALL)
_SHOWN_CHARS = 160

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Pair(_Form):
    """A question, its answer, and the words of the passage that prove it."""

    question: Text
    answer: Text
    quote: Text


class Pairs(_Form):
    pairs: list[Pair]


class Task(_Form):
    """An instruction, what it is about (may be empty), and its answer."""

    instruction: Text
    input: str = ""
    output: Text


class Tasks(_Form):
    tasks: list[Task]


class Paraphrases(_Form):
    paraphrases: list[Text]


class Verdict(_Form):
    score: int = Field(ge=1)
    reason: Text


class Choice(_Form):
    """Labels of a given set, and why."""

    labels: list[Text]
    reason: Text


Form = TypeVar("Form", bound=_Form)


def read_form(answer: Generation, form: type[Form]) -> Form | str:
    """The answer as `form`, or in a few words why it is none.

    A fence of three backticks around the whole answer is allowed, as many models cannot leave it.
    """
    if answer.finish_reason == "length":
        return "cut off: the answer was longer than max_tokens"
    text = answer.text
    if fenced := _FENCE.match(text):
        text = fenced.group(1)
    try:
        return form.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        if problem["type"] == "json_invalid":
            return f"not JSON: {problem['msg'].removeprefix('Invalid JSON: ')}"[:_SHOWN_CHARS]
        place = ".".join(map(str, problem["loc"]))
        return f"not the form asked for: {place}: {problem['msg'].lower()}"[:_SHOWN_CHARS]


def can_be_mended(reason: str) -> bool:
    """Whether asking once more may help: not where the answer was cut off."""
    return not reason.startswith("cut off")


def ask_again(messages: list[Message], answer: str, reason: str) -> list[Message]:
    """The conversation that asks once more for the form, told what was wrong."""
    request = f"That cannot be read ({reason}). Give the same answer again as one JSON object in the form asked for."
    return [*messages, Message("assistant", answer), Message("user", request)]
