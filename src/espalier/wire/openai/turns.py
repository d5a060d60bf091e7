"""The turns of a conversation in OpenAI's shape <-> `Message`: text, calls of tools, and what the tools answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from espalier.core.errors import InvalidInput
from espalier.core.types import Message, ToolCall
from espalier.core.types.examples import Role

_ROLES: dict[str, Role] = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool",
}  # fmt: skip
_JOINT = "\n"  # between the text parts of one message, as vLLM and llama.cpp put it


class Wire(BaseModel):
    """What a client sends: every name known, every value of its type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Part(Wire):
    """One part of a message's content; only text is read."""

    type: Literal["text"]
    text: str
    prompt_cache_breakpoint: Any = None


class Called(Wire):
    """The function of a call, its arguments as the model wrote them."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    arguments: str


class Call(Wire):
    """One call an assistant asked for."""

    id: Annotated[str, Field(min_length=1, max_length=256)]
    type: Literal["function"] = "function"
    function: Called


class Turn(Wire):
    """One message. The last fields are what clients send back when they append our answer to the next request."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[Part], Field(min_length=1)] | None = None
    name: str | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: Annotated[str, Field(max_length=256)] | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None

    def decode(self) -> Message:
        """The same turn in our words."""
        content = self.content or ""
        text = content if isinstance(content, str) else _JOINT.join(part.text for part in content)
        calls = tuple(ToolCall(call.id, call.function.name, call.function.arguments) for call in self.tool_calls or ())
        return Message(_ROLES[self.role], text, tool_calls=calls, tool_call_id=self.tool_call_id or "")


def decode_turns(turns: Sequence[Turn]) -> tuple[Message, ...]:
    """The conversation. Raises InvalidInput where a turn lacks its words, or answers a call that nobody asked for."""
    asked: set[str] = set()
    for number, turn in enumerate(turns):
        where = f"messages[{number}]"
        if turn.content is None and not turn.tool_calls:
            raise InvalidInput(f"{where}.content: is missing", where=f"{where}.content")
        if turn.tool_calls and turn.role != "assistant":
            raise InvalidInput(f"{where}.tool_calls: only an assistant calls tools", where=f"{where}.tool_calls")
        if turn.role == "tool" and turn.tool_call_id not in asked:
            raise InvalidInput(
                f"{where}.tool_call_id: a tool's message answers a call of an assistant's message before it",
                where=f"{where}.tool_call_id",
                hint="send the assistant's message with its `tool_calls` back as it came, then one message for each",
            )
        asked.update(call.id for call in turn.tool_calls or ())
    return tuple(turn.decode() for turn in turns)


def encode_turn(message: Message) -> dict[str, Any]:
    """One message as OpenAI writes it; the inverse of `Turn.decode`."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = [encode_call(call) for call in message.tool_calls]
        turn["content"] = message.content or None
    if message.tool_call_id:
        turn["tool_call_id"] = message.tool_call_id
    return turn


def encode_call(call: ToolCall) -> dict[str, Any]:
    """One call of a tool as OpenAI writes it."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
