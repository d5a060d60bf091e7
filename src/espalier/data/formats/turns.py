"""One turn in other people's JSON -> Message. The spellings of roles, parts of content, what is refused in a turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from espalier.core.errors import InvalidInput
from espalier.core.types import Example, Message
from espalier.core.types.examples import Role

ROLES: tuple[str, ...] = get_args(Role)
CHAT_HINT = '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'
NO_ROLES: Mapping[str, Role] = {}
ReadContent = Callable[[Any, str, str], str]
# What a turn may carry that a Message cannot hold: dropping it would teach something else than was written.
_UNHELD = ("tool_calls", "function_call", "tool_call_id", "audio", "refusal", "name", "reasoning_content")


def read_turns(
    turns: Any, where: str, roles: Mapping[str, Role] = NO_ROLES, hint: str = CHAT_HINT, read: ReadContent | None = None
) -> list[Message]:
    """A list of {"role", "content", "weight"?}; `where` names it in errors. Raises InvalidInput("messages[2]...").

    roles: further spellings of roles, {"developer": "system"}. read: what a content may be, by default `read_content`.
    """
    if not isinstance(turns, list) or not turns:
        raise InvalidInput(f"`{where}` must be a list that is not empty", hint=hint)
    return [
        _read_turn(turn, f"{where}[{index}]", roles, hint, read or read_content) for index, turn in enumerate(turns)
    ]


def _read_turn(turn: Any, where: str, roles: Mapping[str, Role], hint: str, read: ReadContent) -> Message:
    if not isinstance(turn, dict):
        raise InvalidInput(f"{where} is not an object", hint=hint)
    plain = len(turn) == 2 and "content" in turn  # a role and a content: nothing else to look for
    for name in () if plain else _UNHELD:
        if turn.get(name):
            raise InvalidInput(f"{where}.{name} cannot be held", hint="an example holds plain turns: take it out")
    return Message(
        read_role(turn.get("role"), f"{where}.role", roles),
        read(turn.get("content"), f"{where}.content", hint),
        read_weight(turn.get("weight"), f"{where}.weight"),
    )


def read_role(said: Any, where: str, roles: Mapping[str, Role]) -> Role:
    """One of ours, or what `roles` makes of it; raises InvalidInput."""
    if isinstance(said, str):
        if said in roles:
            return roles[said]
        if said in ROLES:
            role: Any = said
            return role  # type: ignore[no-any-return]
    raise InvalidInput(f"{where} is {said!r}", hint=f"one of {', '.join(ROLES)}")


def read_content(content: Any, where: str, hint: str = CHAT_HINT) -> str:
    """A text, or a list of text parts, which are joined as they stand. Raises InvalidInput for an empty one."""
    if isinstance(content, list) and content:
        content = "".join(read_part(part, f"{where}[{index}]") for index, part in enumerate(content))
    if not isinstance(content, str) or not content.strip():
        raise InvalidInput(f"{where} must be a text that is not empty", hint=hint)
    return content


def read_parts(content: Any, where: str, hint: str) -> str:
    """`read_content` of a list of parts, which Bedrock wants, and of nothing else."""
    if not isinstance(content, list):
        raise InvalidInput(f'{where} must be a list of parts, [{{"text": "..."}}]', hint=hint)
    if any(isinstance(part, dict) and "type" in part for part in content):
        raise InvalidInput(f"{where} has parts with a `type`, as OpenAI's have", hint=hint)
    return read_content(content, where, hint)


def read_plain(content: Any, where: str, hint: str) -> str:
    """`read_content` of a text, and of nothing else."""
    if isinstance(content, list):
        raise InvalidInput(f"{where} must be a text, not a list", hint=hint)
    return read_content(content, where, hint)


def read_part(part: Any, where: str) -> str:
    """The text of one content part, OpenAI's {"type": "text", "text"} or Bedrock's {"text"}; others are refused."""
    if isinstance(part, dict) and part.get("type", "text") == "text" and set(part) <= {"type", "text"}:
        text = part.get("text")
        if isinstance(text, str):
            return text
    kinds = (part.get("type") or ", ".join(part)) if isinstance(part, dict) else type(part).__name__
    raise InvalidInput(f"{where} is no text part but {kinds}", hint="only text is held: leave such rows out")


def read_weight(weight: Any, where: str) -> float | None:
    """A loss weight from 0 up, or none."""
    if weight is None:
        return None
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
        raise InvalidInput(f"{where} is {weight!r}", hint="a number from 0 up")
    return float(weight)


def split_system(messages: Sequence[Message]) -> tuple[str, list[Message]]:
    """A leading system turn's text (empty without one) and the turns after it."""
    if messages and messages[0].role == "system":
        return messages[0].content, list(messages[1:])
    return "", list(messages)


def conversation_of(example: Example, name: str) -> list[Message]:
    """The example's turns, when it is a conversation; raises InvalidInput naming the format that wants one."""
    if example.chosen or example.rejected:
        raise InvalidInput(f"a preference pair, which {name} cannot hold", hint="write pairs as preference")
    if not example.messages:
        raise InvalidInput(f"raw text, which {name} cannot hold", hint="write raw text as text")
    return example.messages


def refuse_weights(messages: Sequence[Message], name: str) -> None:
    """Raises InvalidInput when a turn has a loss weight of its own: the format has no place for it."""
    for index, message in enumerate(messages):
        if message.weight is not None:
            raise InvalidInput(
                f"turn {index + 1} has the weight {message.weight:g}, which {name} cannot hold",
                hint="openai-chat holds weights",
            )


def refuse_roles(messages: Sequence[Message], allowed: Sequence[str], name: str) -> None:
    """Raises InvalidInput for a turn in a role the format does not have, or not in that place."""
    for index, message in enumerate(messages):
        if message.role not in allowed:
            raise InvalidInput(f"turn {index + 1} is the {message.role}'s, which {name} cannot hold", hint="")


def exchange_of(example: Example, name: str, *, system: bool) -> tuple[str, str, str]:
    """(system, user, assistant) of an example that is one exchange; raises InvalidInput for any other."""
    messages = conversation_of(example, name)
    refuse_weights(messages, name)
    said, turns = split_system(messages)
    if said and not system:
        raise InvalidInput(f"a system turn, which {name} cannot hold", hint="openai-chat and sharegpt hold one")
    if [turn.role for turn in turns] != ["user", "assistant"]:
        roles = ", ".join(turn.role for turn in turns)
        raise InvalidInput(f"turns {roles}: {name} holds one question and one answer", hint="write it as openai-chat")
    return said, turns[0].content, turns[1].content
