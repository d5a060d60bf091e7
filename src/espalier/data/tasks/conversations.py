"""Examples people already have: chat JSON lines (OpenAI's fine-tuning format) and prompt/completion JSON lines.

Format: https://platform.openai.com/docs/guides/supervised-fine-tuning. Each line becomes a Document (its turns, one
after another, for cleaning, deduplication and lineage) together with its messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from pydantic import Field

from espalier.core.errors import InvalidInput
from espalier.core.types import Document, Example, Message, Spec
from espalier.core.types.examples import Role
from espalier.data.readers.plain import decode
from espalier.data.readers.reading import OnError, Reading
from espalier.data.readers.source import SkippedFile, SourceFile, suffix_of
from espalier.data.readers.table import parse_object

_ROLES = get_args(Role)
_EXAMPLE = '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'


class ChatTask(Spec):
    """Lines of {"messages": [{"role", "content"}, ...]}."""

    kind: Literal["chat"] = "chat"


class CompletionTask(Spec):
    """Lines of {"prompt": ..., "completion": ...}."""

    kind: Literal["completion"] = "completion"
    prompt: str = Field("prompt", description="field with the question")
    completion: str = Field("completion", description="field with the answer")
    system: str = Field("", description="field with a system message; empty = none")


@dataclass(slots=True)
class Conversations:
    """What was read, and the messages by document id."""

    reading: Reading = field(default_factory=Reading)
    messages: dict[str, list[Message]] = field(default_factory=dict)


def read_conversations(
    sources: Sequence[SourceFile], task: ChatTask | CompletionTask, on_error: OnError = "skip"
) -> Conversations:
    """Read every .jsonl source; a bad line is a dropped document.

    With on_error="fail" the first bad line raises InvalidInput("chats.jsonl:3: ...").
    """
    found = Conversations()
    for source in sources:
        if suffix_of(source.uri) != "jsonl":
            reason = f"refused: a {task.kind} task reads .jsonl files only"
            found.reading.skipped.append(SkippedFile(uri=source.uri, reason=reason, sha256=source.sha256))
            continue
        try:
            lines = decode(source.path.read_bytes()).split("\n")
        except InvalidInput as error:
            if on_error == "fail":
                raise
            reason = f"unreadable: {error.message}"
            found.reading.skipped.append(SkippedFile(uri=source.uri, reason=reason, sha256=source.sha256))
            continue
        _read_lines(source, lines, task, on_error, found)
    return found


def _read_lines(
    source: SourceFile, lines: list[str], task: ChatTask | CompletionTask, on_error: OnError, found: Conversations
) -> None:
    offset = number = 0
    for line_number, line in enumerate(lines, 1):
        start, offset = offset, offset + len(line) + 1
        if not line.strip():
            continue
        number += 1
        try:
            messages = parse_conversation(line, task)
        except InvalidInput as error:
            where = f"{source.uri}:{line_number}"
            if on_error == "fail":
                raise InvalidInput(error.message, where=where, hint=error.hint or "mend that line") from None
            found.reading.documents.append(
                source.dropped(number, f"unreadable: {where}: {error.message}", start, start + len(line))
            )
            continue
        document = _to_document(source, number, messages, line_number, start, start + len(line))
        found.reading.documents.append(document)
        found.messages[document.id] = messages


def parse_conversation(line: str, task: ChatTask | CompletionTask) -> list[Message]:
    """The messages of one line; raises InvalidInput. The last one must be the assistant's, and none may be empty."""
    row = parse_object(line)
    messages = _from_chat(row) if isinstance(task, ChatTask) else _from_completion(row, task)
    if messages[-1].role != "assistant":
        raise InvalidInput(f"the last message is the {messages[-1].role}'s, nothing to learn from", hint=_EXAMPLE)
    if not any(message.role == "user" for message in messages):
        raise InvalidInput("no user message", hint=_EXAMPLE)
    return messages


def _from_chat(row: dict[str, Any]) -> list[Message]:
    turns = row.get("messages")
    if not isinstance(turns, list) or not turns:
        raise InvalidInput("`messages` must be a list that is not empty", hint=_EXAMPLE)
    return [_to_message(turn, index) for index, turn in enumerate(turns)]


def _to_message(turn: Any, index: int) -> Message:
    role: Any
    if not isinstance(turn, dict):
        raise InvalidInput(f"messages[{index}] is not an object", hint=_EXAMPLE)
    role, content, weight = turn.get("role"), turn.get("content"), turn.get("weight")
    if role not in _ROLES:
        raise InvalidInput(f"messages[{index}].role is {role!r}", hint=f"one of {', '.join(_ROLES)}")
    if not isinstance(content, str) or not content.strip():
        raise InvalidInput(f"messages[{index}].content must be a text that is not empty", hint=_EXAMPLE)
    if weight is not None and (isinstance(weight, bool) or not isinstance(weight, int | float) or weight < 0):
        raise InvalidInput(f"messages[{index}].weight is {weight!r}", hint="a number from 0 up")
    return Message(role, content, None if weight is None else float(weight))


def _from_completion(row: dict[str, Any], task: CompletionTask) -> list[Message]:
    pairs: tuple[tuple[Role, str], ...] = (
        ("system", task.system),
        ("user", task.prompt),
        ("assistant", task.completion),
    )
    messages = []
    for role, name in pairs:
        if not name or (role == "system" and name not in row):
            continue
        value = row.get(name)
        if not isinstance(value, str) or not value.strip():
            raise InvalidInput(f"`{name}` must be a text that is not empty", hint=f"fields here: {', '.join(row)}")
        messages.append(Message(role, value))
    return messages


def _to_document(source: SourceFile, number: int, messages: list[Message], line: int, start: int, end: int) -> Document:
    text = "\n\n".join(message.content for message in messages)
    tags = {"format": "jsonl", "line": str(line)}
    return Document(source.document_id(number), text, source.span(1, start, end), tags)


def make_example(document: Document, messages: list[Message]) -> Example:
    """The example of a kept line."""
    return Example(f"ex_{document.id}", messages, documents=[document.id], tags=dict(document.tags))
