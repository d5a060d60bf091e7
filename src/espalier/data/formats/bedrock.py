"""Bedrock's fine-tuning rows: `bedrock-conversation-2024`, prompt/completion, and Claude's messages.

https://docs.aws.amazon.com/bedrock/latest/userguide/preparing-text-data.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from espalier.core.errors import InvalidInput
from espalier.core.types import Example, Message
from espalier.data.formats.decoded import Decoded, Row, check_conversation, read_optional, read_text
from espalier.data.formats.shape import Format
from espalier.data.formats.turns import (
    conversation_of,
    exchange_of,
    read_parts,
    read_plain,
    read_turns,
    refuse_roles,
    refuse_weights,
    split_system,
)

SCHEMA_VERSION = "bedrock-conversation-2024"
_NAME = "bedrock-conversation"
_URL = "https://docs.aws.amazon.com/bedrock/latest/userguide/preparing-text-data.html"
_HINT = (
    '{"schemaVersion": "bedrock-conversation-2024", "system": [{"text": "..."}], '
    '"messages": [{"role": "user", "content": [{"text": "..."}]}, ...]}'
)


def decode_conversation(row: Row, columns: Mapping[str, str]) -> Decoded:
    """System and turns, each a list of text parts."""
    version = row.get(columns["version"])
    if version not in (SCHEMA_VERSION, None):
        raise InvalidInput(f"`{columns['version']}` is {version!r}", hint=f"known is {SCHEMA_VERSION}")
    system = row.get(columns["system"])
    messages = read_turns(row.get(columns["messages"]), columns["messages"], hint=_HINT, read=read_parts)
    refuse_roles(messages, ("user", "assistant"), _NAME)
    refuse_weights(messages, _NAME)
    check_conversation(messages, _HINT)
    if system:
        messages.insert(0, Message("system", read_parts(system, columns["system"], _HINT)))
    return Decoded(messages)


def encode_conversation(example: Example) -> dict[str, object]:
    """One text part a turn; the system turn beside the others. Raises InvalidInput for weights and other roles."""
    messages = conversation_of(example, _NAME)
    refuse_weights(messages, _NAME)
    system, turns = split_system(messages)
    refuse_roles(turns, ("user", "assistant"), _NAME)
    row: dict[str, object] = {"schemaVersion": SCHEMA_VERSION}
    if system:
        row["system"] = [{"text": system}]
    row["messages"] = [{"role": turn.role, "content": [{"text": turn.content}]} for turn in turns]
    return row


def decode_completion(row: Row, columns: Mapping[str, str]) -> Decoded:
    """Prompt and completion; nothing else is part of it."""
    question, answer = read_text(row, columns["prompt"]), read_text(row, columns["completion"])
    return Decoded([Message("user", question), Message("assistant", answer)])


def encode_completion(example: Example) -> dict[str, object]:
    """One exchange without a system turn."""
    _, question, answer = exchange_of(example, "bedrock-completion", system=False)
    return {"prompt": question, "completion": answer}


def decode_claude(row: Row, columns: Mapping[str, str]) -> Decoded:
    """Turns whose content is a text, and a system text beside them."""
    messages = read_turns(row.get(columns["messages"]), columns["messages"], read=read_plain)
    refuse_roles(messages, ("user", "assistant"), "bedrock-claude")
    refuse_weights(messages, "bedrock-claude")
    check_conversation(messages)
    system = read_optional(row, columns["system"])
    return Decoded([Message("system", system), *messages] if system.strip() else messages)


def encode_claude(example: Example) -> dict[str, object]:
    """The system turn beside the others. Raises InvalidInput for weights and other roles."""
    messages = conversation_of(example, "bedrock-claude")
    refuse_weights(messages, "bedrock-claude")
    system, turns = split_system(messages)
    refuse_roles(turns, ("user", "assistant"), "bedrock-claude")
    row: dict[str, object] = {"system": system} if system else {}
    row["messages"] = [{"role": turn.role, "content": turn.content} for turn in turns]
    return row


def _is_conversation(row: Mapping[str, Any]) -> bool:
    """By its version; without one, by parts of content that have no type, as OpenAI's have."""
    version, turns = row.get("schemaVersion"), row["messages"]
    if version is not None:
        return isinstance(version, str) and version.startswith("bedrock-conversation")
    content = turns[0].get("content") if isinstance(turns, list) and turns and isinstance(turns[0], dict) else None
    return isinstance(content, list) and all(isinstance(part, dict) and "type" not in part for part in content)


FORMATS = (
    Format(
        name=_NAME,
        title="Bedrock conversation",
        url=_URL,
        holds="conversations",
        columns={"version": "schemaVersion", "system": "system", "messages": "messages"},
        needed=("messages",),
        decode=decode_conversation,
        encode=encode_conversation,
        fits=_is_conversation,
        over=("openai-chat", "text"),
    ),
    Format(
        name="bedrock-claude",
        title="Bedrock conversation of Claude 3 Haiku",
        url=_URL,
        holds="conversations",
        columns={"system": "system", "messages": "messages"},
        needed=("system", "messages"),
        decode=decode_claude,
        encode=encode_claude,
        # OpenAI's rows have no text beside the turns; without one the two look the same and say the same.
        fits=lambda row: isinstance(row["system"], str),
        over=("openai-chat", "text"),
    ),
    Format(
        name="bedrock-completion",
        title="Bedrock prompt and completion",
        url=_URL,
        holds="conversations",
        columns={"prompt": "prompt", "completion": "completion"},
        needed=("prompt", "completion"),
        decode=decode_completion,
        encode=encode_completion,
        # The same columns as `completion`, which is what such rows are taken for: this one is asked for by name.
        fits=lambda row: False,
    ),
)
