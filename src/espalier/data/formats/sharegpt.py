"""ShareGPT rows: {"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}], "system"?}.

The spellings are those LLaMA-Factory and axolotl read:
https://llamafactory.readthedocs.io/en/latest/getting_started/data_preparation.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from espalier.core.errors import InvalidInput
from espalier.core.types import Example, Message
from espalier.core.types.examples import Role
from espalier.data.formats.decoded import Decoded, Row, check_conversation, read_optional
from espalier.data.formats.shape import Format
from espalier.data.formats.turns import conversation_of, read_content, read_role, read_weight, refuse_weights

_HINT = '{"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}'
_ROLES: Mapping[str, Role] = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "observation": "tool",
    "function_response": "tool",
}
_FROM: Mapping[Role, str] = {"system": "system", "user": "human", "assistant": "gpt", "tool": "tool"}


def decode(row: Row, columns: Mapping[str, str]) -> Decoded:
    """The turns by who they are from; a system text beside them comes first."""
    name = columns["conversations"]
    turns = row.get(name)
    if row.get("tools"):
        raise InvalidInput("`tools` cannot be held: an example has no tools", hint="leave such rows out")
    if not isinstance(turns, list) or not turns:
        raise InvalidInput(f"`{name}` must be a list that is not empty", hint=_HINT)
    messages = [_read_turn(turn, f"{name}[{index}]") for index, turn in enumerate(turns)]
    system = read_optional(row, columns["system"])
    if system.strip():
        if messages[0].role == "system":
            raise InvalidInput("two system texts: one beside the turns, one among them", hint="keep one of the two")
        messages.insert(0, Message("system", system))
    check_conversation(messages, _HINT)
    return Decoded(messages)


def encode(example: Example) -> dict[str, object]:
    """Every turn as it stands, the system turn among them; raises InvalidInput for weights."""
    messages = conversation_of(example, "sharegpt")
    refuse_weights(messages, "sharegpt")
    return {"conversations": [{"from": _FROM[turn.role], "value": turn.content} for turn in messages]}


def _read_turn(turn: Any, where: str) -> Message:
    if not isinstance(turn, dict):
        raise InvalidInput(f"{where} is not an object", hint=_HINT)
    return Message(
        read_role(turn.get("from"), f"{where}.from", _ROLES),
        read_content(turn.get("value"), f"{where}.value", _HINT),
        read_weight(turn.get("weight"), f"{where}.weight"),
    )


FORMATS = (
    Format(
        name="sharegpt",
        title="ShareGPT",
        url="https://llamafactory.readthedocs.io/en/latest/getting_started/data_preparation.html",
        holds="conversations",
        columns={"conversations": "conversations", "system": "system"},
        needed=("conversations",),
        decode=decode,
        encode=encode,
        over=("text",),
    ),
)
