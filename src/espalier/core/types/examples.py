"""What flows from a folder of files to a training batch: Document -> Example (of Messages).

Plain slots dataclasses: they are made by the million, and pydantic is 2 to 9 times dearer here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from espalier.core.types.inference import ToolCall

Role = Literal["system", "user", "assistant", "tool"]
Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class Span:
    """Where a text came from: a stretch of the extracted text of one page of one source file."""

    blob: str  # sha256 of the source file's bytes
    uri: str  # the source as the user named it, relative to its root
    page: int = 1  # 1-based; a format without pages has one
    start: int = 0  # offset in characters of the page's extracted text
    end: int = 0  # exclusive; 0 = to the end


@dataclass(slots=True)
class Document:
    """One text with its origin. `dropped_because` is empty while it is kept; a drop is never silent."""

    id: str
    text: str
    span: Span
    tags: dict[str, str] = field(default_factory=dict)
    dropped_because: str = ""
    continued: tuple[Span, ...] = ()  # the further pages the text runs over

    @property
    def spans(self) -> tuple[Span, ...]:
        """Every stretch of the source the text was read from, in order."""
        return (self.span, *self.continued)


@dataclass(slots=True)
class Message:
    """One turn. `weight` is the loss weight of its tokens; None lets the role decide (assistant 1, others 0)."""

    role: Role
    content: str
    weight: float | None = None
    tool_calls: tuple[ToolCall, ...] = ()  # what an assistant asked to have called
    tool_call_id: str = ""  # which of those calls a tool's message answers


@dataclass(slots=True)
class Example:
    """One training or evaluation row: `messages`, or raw `text`, or a preference pair.

    For evaluation the last assistant message is the reference answer; what stands before it is the question.
    """

    id: str
    messages: list[Message] = field(default_factory=list)
    text: str = ""
    chosen: list[Message] = field(default_factory=list)
    rejected: list[Message] = field(default_factory=list)
    split: Split = "train"
    documents: list[str] = field(default_factory=list)  # ids of the documents it was made from
    tags: dict[str, str] = field(default_factory=dict)
