"""`Decoded`: what one foreign row says, before it has an id, a split or an origin. Knows turns; knows no format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from espalier.core.errors import InvalidInput
from espalier.core.types import Message

Row = Mapping[str, Any]


@dataclass(slots=True)
class Decoded:
    """A conversation, raw text, or a preference pair.

    Of a pair, `messages` is the shared prompt, `chosen` and `rejected` are the two ways it goes on. Beside turns,
    `text` is what of them is worth comparing, without what a template puts into every one; empty = all turns.
    `start` and `end` narrow the span of a part of a document; both 0 = the whole of it. `form` is the format's name.
    """

    messages: list[Message] = field(default_factory=list)
    text: str = ""
    chosen: list[Message] = field(default_factory=list)
    rejected: list[Message] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    start: int = 0
    end: int = 0
    form: str = ""

    def whole_text(self) -> str:
        """What steps that look at text see: `text`, or the turns one after another."""
        turns = [*self.messages, *self.chosen, *self.rejected]
        return self.text or "\n\n".join(turn.content for turn in turns)


def read_text(row: Row, name: str) -> str:
    """A column that must hold a text (or a number). Raises InvalidInput when it is empty or something else."""
    text = read_optional(row, name)
    if not text.strip():
        raise InvalidInput(f"`{name}` must be a text that is not empty", hint=f"fields here: {', '.join(row)}")
    return text


def read_optional(row: Row, name: str) -> str:
    """A column that may be absent, null or empty. Raises InvalidInput for a list or an object."""
    value = row.get(name)
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    raise InvalidInput(f"`{name}` must be a text, not {_name_of(value)}", hint=f"fields here: {', '.join(row)}")


def check_conversation(messages: Sequence[Message], hint: str = "") -> None:
    """Raises InvalidInput unless the assistant speaks last and a user has spoken: else there is nothing to learn."""
    if not messages or messages[-1].role != "assistant":
        last = f"the last message is the {messages[-1].role}'s" if messages else "no message"
        raise InvalidInput(f"{last}, nothing to learn from", hint=hint)
    if not any(message.role == "user" for message in messages):
        raise InvalidInput("no user message", hint=hint)


def check_pair(decoded: Decoded, hint: str = "") -> None:
    """Raises InvalidInput unless both answers follow a prompt, end with the assistant and differ."""
    for name, turns in (("prompt", decoded.messages), ("chosen", decoded.chosen), ("rejected", decoded.rejected)):
        if not turns:
            raise InvalidInput(f"the {name} is empty", hint=hint)
    if decoded.messages[-1].role == "assistant":
        raise InvalidInput("the prompt ends with the assistant's turn, nothing is asked", hint=hint)
    for name, turns in (("chosen", decoded.chosen), ("rejected", decoded.rejected)):
        if turns[-1].role != "assistant":
            raise InvalidInput(f"the {name} answer ends with the {turns[-1].role}'s turn", hint=hint)
    if decoded.chosen == decoded.rejected:
        raise InvalidInput("the chosen and the rejected answer are the same", hint="a pair says which is better")


def _name_of(value: Any) -> str:
    return "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else type(value).__name__
