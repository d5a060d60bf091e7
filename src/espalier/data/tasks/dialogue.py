"""Transcripts ("Anna: Good morning ...") as conversations: who speaks is found by name, and mapped to a role."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from espalier.core.errors import InvalidInput
from espalier.core.types import Message
from espalier.core.types.examples import Role
from espalier.data.formats.decoded import Decoded, Row
from espalier.data.tasks.fields import prepare_field, prepare_required
from espalier.data.tasks.rows import RowSpec, RowTask
from espalier.data.tasks.task import Rewrite, Task, TaskKind

_SPEAKER = r"[^\W\d_][\w .'’-]{0,39}"  # a name: a letter, then up to 39 of what names are made of
Turn = tuple[str, str]  # speaker, what was said


class DialogueTask(RowSpec):
    """Texts in which lines begin with "Speaker:"."""

    kind: Literal["dialogue"] = "dialogue"
    text: str = Field("text", description="column, path or template with the transcript; a document's text")
    speakers: dict[str, Role] = Field(
        {},
        description="role by name, whatever its case: {Agent: assistant, Customer: user}; empty = who speaks first is "
        "the user, who speaks second the assistant, and a third is refused",
    )
    pattern: str = Field(
        "", description="regular expression of a turn's beginning; its first group is the speaker; empty = `Name:`"
    )
    system: str = Field("", description="column or template with a system message; empty = none")


def prepare(spec: DialogueTask, folder: Path, rewrite: Rewrite | None) -> Task:
    """Raises InvalidInput for a pattern or a template that is none."""
    pattern = compile_pattern(spec.pattern, spec.speakers)
    roles = {name.casefold(): role for name, role in spec.speakers.items()}
    read = prepare_required(spec.text, "task.text")
    system = prepare_field(spec.system, "task.system") if spec.system else None

    def decode(row: Row) -> Decoded:
        turns = split_turns(read(row), pattern)
        messages = to_messages(turns, roles or guess_roles(turns))
        if system and (text := system(row)).strip():
            messages.insert(0, Message("system", text))
        return Decoded(messages, text="\n\n".join(turn.content for turn in messages if turn.role != "system"))

    return RowTask(decode, keep=spec.tags, group=spec.prepare_group())


def compile_pattern(pattern: str, speakers: Iterable[str]) -> re.Pattern[str]:
    """How a turn begins: `pattern`, else one of the named speakers and a colon, else any name and a colon."""
    if not pattern:
        names = "|".join(sorted(map(re.escape, speakers), key=lambda name: (-len(name), name))) or _SPEAKER
        return re.compile(rf"^[ \t]*({names})[ \t]*:[ \t]*", re.MULTILINE | re.IGNORECASE)
    try:
        compiled = re.compile(pattern, re.MULTILINE)
    except re.error as error:
        raise InvalidInput(f"not a regular expression: {error}", where="task.pattern", hint=r"try '^(\w+):'") from None
    if not compiled.groups:
        raise InvalidInput("no group that is the speaker", where="task.pattern", hint=r"try '^(\w+):'")
    return compiled


def split_turns(text: str, pattern: re.Pattern[str]) -> list[Turn]:
    """(speaker, what was said) in order; lines without a speaker belong to the turn before.

    Raises InvalidInput when nobody speaks, or when words stand before the first speaker.
    """
    marks = list(pattern.finditer(text))
    if not marks:
        raise InvalidInput("nobody speaks: no line begins with a speaker", hint="name them in task.speakers")
    if text[: marks[0].start()].strip():
        raise InvalidInput(f"words before the first speaker, {marks[0][1]}", hint="set task.pattern or cut them off")
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    turns = [(mark[1].strip(), text[mark.end() : end].strip()) for mark, end in zip(marks, ends, strict=True)]
    return [turn for turn in turns if turn[1]]


def guess_roles(turns: Iterable[Turn]) -> dict[str, Role]:
    """The first to speak is the user, the second the assistant. Raises InvalidInput for more than two."""
    names = list(dict.fromkeys(speaker.casefold() for speaker, _ in turns))
    if len(names) > 2:
        raise InvalidInput(f"{len(names)} speakers, and no roles", hint="give each a role in task.speakers")
    roles: tuple[Role, ...] = ("user", "assistant")
    return dict(zip(names, roles, strict=False))


def to_messages(turns: Iterable[Turn], roles: Mapping[str, Role]) -> list[Message]:
    """Turns as messages; successive ones of one role become one, and what follows the last answer is cut off.

    Raises InvalidInput for a speaker without a role, and when nobody answers.
    """
    messages: list[Message] = []
    for speaker, said in turns:
        role = roles.get(speaker.casefold())
        if role is None:
            raise InvalidInput(f"{speaker!r} has no role", hint="give each speaker a role in task.speakers")
        if messages and messages[-1].role == role:
            messages[-1].content += f"\n{said}"
        else:
            messages.append(Message(role, said))
    while messages and messages[-1].role != "assistant":
        messages.pop()
    if not any(message.role == "user" for message in messages):
        raise InvalidInput("no question that the assistant answers", hint="which speaker is whom: task.speakers")
    return messages


KIND = TaskKind("dialogue", 1, DialogueTask, prepare)
