"""OpenAI's fine-tuning rows: conversations with loss weights, and preference pairs.

https://platform.openai.com/docs/guides/supervised-fine-tuning and .../direct-preference-optimization
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from espalier.core.errors import InvalidInput
from espalier.core.types import Example, Message
from espalier.core.types.examples import Role
from espalier.data.formats.decoded import Decoded, Row, check_conversation, check_pair
from espalier.data.formats.shape import Format
from espalier.data.formats.turns import CHAT_HINT, conversation_of, read_turns, refuse_weights

_PAIR_HINT = '{"input": {"messages": [...]}, "preferred_output": [...], "non_preferred_output": [...]}'
_ROLES: Mapping[str, Role] = {"developer": "system"}
# What may stand beside the messages and changes what the model is taught.
_UNHELD = ("tools", "functions", "parallel_tool_calls", "response_format")


def decode_chat(row: Row, columns: Mapping[str, str]) -> Decoded:
    """{"messages": [...]}: the conversation as it is."""
    _refuse_tools(row)
    messages = read_turns(row.get(columns["messages"]), columns["messages"], _ROLES)
    check_conversation(messages, CHAT_HINT)
    return Decoded(messages)


def encode_chat(example: Example) -> dict[str, object]:
    """The turns, with `weight` where one is set. OpenAI itself takes the weights 0 and 1 only (`check_dataset`)."""
    return {"messages": write_turns(conversation_of(example, "openai-chat"))}


def decode_pair(row: Row, columns: Mapping[str, str]) -> Decoded:
    """{"input": {"messages"}, "preferred_output", "non_preferred_output"}."""
    asked = row.get(columns["input"])
    if not isinstance(asked, dict):
        raise InvalidInput(f"`{columns['input']}` must be an object with messages", hint=_PAIR_HINT)
    _refuse_tools(asked)
    decoded = Decoded(
        messages=read_turns(asked.get("messages"), f"{columns['input']}.messages", _ROLES, _PAIR_HINT),
        chosen=read_turns(row.get(columns["preferred"]), columns["preferred"], _ROLES, _PAIR_HINT),
        rejected=read_turns(row.get(columns["rejected"]), columns["rejected"], _ROLES, _PAIR_HINT),
    )
    check_pair(decoded, _PAIR_HINT)
    return decoded


def encode_pair(example: Example) -> dict[str, object]:
    """The pair; raises InvalidInput for anything else, and for weights."""
    if not (example.messages and example.chosen and example.rejected):
        raise InvalidInput("no preference pair, which openai-preference needs", hint="write conversations as chat")
    for turns in (example.messages, example.chosen, example.rejected):
        refuse_weights(turns, "openai-preference")
    return {
        "input": {"messages": write_turns(example.messages)},
        "preferred_output": write_turns(example.chosen),
        "non_preferred_output": write_turns(example.rejected),
    }


def write_turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Turns as {"role", "content"} and `weight` where there is one; a whole weight is an integer, as OpenAI wants."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        turn: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.weight is not None:
            turn["weight"] = int(message.weight) if message.weight.is_integer() else message.weight
        turns.append(turn)
    return turns


def _refuse_tools(row: Row) -> None:
    for name in _UNHELD:
        if row.get(name):
            raise InvalidInput(f"`{name}` cannot be held: an example has no tools", hint="leave such rows out")


FORMATS = (
    Format(
        name="openai-chat",
        title="OpenAI chat",
        url="https://platform.openai.com/docs/guides/supervised-fine-tuning",
        holds="conversations",
        columns={"messages": "messages"},
        needed=("messages",),
        decode=decode_chat,
        encode=encode_chat,
        over=("text",),
    ),
    Format(
        name="openai-preference",
        title="OpenAI preference pairs",
        url="https://platform.openai.com/docs/guides/direct-preference-optimization",
        holds="pairs",
        columns={"input": "input", "preferred": "preferred_output", "rejected": "non_preferred_output"},
        needed=("input", "preferred", "rejected"),
        decode=decode_pair,
        encode=encode_pair,
        over=("text",),
    ),
)
