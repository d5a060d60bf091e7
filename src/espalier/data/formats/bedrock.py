"""Bedrock's fine-tuning rows: `bedrock-conversation-2024`, and prompt/completion.

https://docs.aws.amazon.com/bedrock/latest/userguide/preparing-text-data.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from espalier.core.errors import InvalidInput
from espalier.core.types import Example, Message
from espalier.data.formats.decoded import Decoded, Row, check_conversation, read_text
from espalier.data.formats.format import Format
from espalier.data.formats.turns import (
    conversation_of,
    exchange_of,
    read_content,
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
    if version != SCHEMA_VERSION:
        raise InvalidInput(f"`{columns['version']}` is {version!r}", hint=f"known is {SCHEMA_VERSION}")
    system = row.get(columns["system"])
    messages = read_turns(row.get(columns["messages"]), columns["messages"], hint=_HINT)
    refuse_roles(messages, ("user", "assistant"), _NAME)
    refuse_weights(messages, _NAME)
    check_conversation(messages, _HINT)
    if system:
        messages.insert(0, Message("system", read_content(system, columns["system"], _HINT)))
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


def _is_conversation(row: Mapping[str, Any]) -> bool:
    version = row["schemaVersion"]
    return isinstance(version, str) and version.startswith("bedrock-conversation")


FORMATS = (
    Format(
        name=_NAME,
        title="Bedrock conversation",
        url=_URL,
        holds="conversations",
        columns={"version": "schemaVersion", "system": "system", "messages": "messages"},
        needed=("version", "messages"),
        decode=decode_conversation,
        encode=encode_conversation,
        fits=_is_conversation,
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
