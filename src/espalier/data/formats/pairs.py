"""Preference rows as TRL reads them: prompt/chosen/rejected, and KTO's prompt/completion/label.

https://huggingface.co/docs/trl/dataset_formats
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from espalier.core.errors import InvalidInput
from espalier.core.types import Example, Message
from espalier.core.types.examples import Role
from espalier.data.formats.columns import decode_completion
from espalier.data.formats.decoded import Decoded, Row, check_pair, read_text
from espalier.data.formats.openai import write_turns
from espalier.data.formats.shape import Format
from espalier.data.formats.turns import exchange_of, read_turns, refuse_weights

DESIRABLE = "desirable"  # tag of a KTO row: "true" or "false"
_URL = "https://huggingface.co/docs/trl/dataset_formats"
_HINT = '{"prompt": "...", "chosen": "...", "rejected": "..."}'
# Anthropic's HH-RLHF writes both conversations whole: "\n\nHuman: ...\n\nAssistant: ...".
_TRANSCRIPT = re.compile(r"\n\n(Human|Assistant):")


def decode_pair(row: Row, columns: Mapping[str, str]) -> Decoded:
    """Texts or lists of turns. Without a prompt, the turns both conversations begin with are the prompt."""
    prompt = row.get(columns["prompt"])
    chosen, rejected = (_read_side(row, columns[name]) for name in ("chosen", "rejected"))
    if isinstance(prompt, list):
        messages = read_turns(prompt, columns["prompt"], hint=_HINT)
    elif prompt:
        messages = [Message("user", read_text(row, columns["prompt"]))]
    else:
        messages = []
    shared = _shared(chosen, rejected)
    if not messages:
        messages, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    elif shared >= len(messages) and chosen[: len(messages)] == messages:
        # Both sides repeat the prompt (UltraFeedback's shape): said once is enough.
        chosen, rejected = chosen[len(messages) :], rejected[len(messages) :]
    decoded = Decoded(messages, chosen=chosen, rejected=rejected)
    check_pair(decoded, _HINT)
    return decoded


def encode_pair(example: Example) -> dict[str, object]:
    """Texts where the pair is one question and two answers, else lists of turns; raises InvalidInput for weights."""
    if not (example.messages and example.chosen and example.rejected):
        raise InvalidInput("no preference pair, which preference needs", hint="write conversations as openai-chat")
    sides = (example.messages, example.chosen, example.rejected)
    for turns in sides:
        refuse_weights(turns, "preference")
    names = ("prompt", "chosen", "rejected")
    if [[turn.role for turn in turns] for turns in sides] == [["user"], ["assistant"], ["assistant"]]:
        return {name: turns[0].content for name, turns in zip(names, sides, strict=True)}
    return {name: write_turns(turns) for name, turns in zip(names, sides, strict=True)}


def decode_kto(row: Row, columns: Mapping[str, str]) -> Decoded:
    """One answer and whether it is a good one, which the tag `desirable` keeps."""
    label = row.get(columns["label"])
    if not isinstance(label, bool):
        raise InvalidInput(f"`{columns['label']}` is {label!r}", hint="true for a good answer, false for a bad one")
    decoded = decode_completion(row, {**columns, "system": "system"})
    decoded.tags[DESIRABLE] = "true" if label else "false"
    return decoded


def encode_kto(example: Example) -> dict[str, object]:
    """One exchange with its verdict; raises InvalidInput where there is no tag `desirable`."""
    verdict = example.tags.get(DESIRABLE)
    if verdict not in ("true", "false"):
        raise InvalidInput(f"no tag `{DESIRABLE}`, which kto needs", hint="true for a good answer, false for a bad one")
    _, question, answer = exchange_of(example, "kto", system=False)
    return {"prompt": question, "completion": answer, "label": verdict == "true"}


def _read_side(row: Row, name: str) -> list[Message]:
    value: Any = row.get(name)
    if isinstance(value, list):
        return read_turns(value, name, hint=_HINT)
    text = read_text(row, name)
    return _read_transcript(text, name) if _TRANSCRIPT.match(text) else [Message("assistant", text)]


def _read_transcript(text: str, name: str) -> list[Message]:
    pieces = _TRANSCRIPT.split(text)[1:]
    turns = []
    for speaker, said in zip(pieces[::2], pieces[1::2], strict=True):
        role: Role = "user" if speaker == "Human" else "assistant"
        if not said.strip():
            raise InvalidInput(f"`{name}` has an empty turn", hint=_HINT)
        turns.append(Message(role, said.strip()))
    return turns


def _shared(one: Sequence[Message], other: Sequence[Message]) -> int:
    """How many turns both begin with."""
    count = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        count += 1
    return count


FORMATS = (
    Format(
        name="preference",
        title="preference pairs",
        url=_URL,
        holds="pairs",
        columns={"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"},
        needed=("chosen", "rejected"),
        decode=decode_pair,
        encode=encode_pair,
        over=("text", "text-label"),
    ),
    Format(
        name="kto",
        title="KTO: an answer and whether it is good",
        url=_URL,
        holds="pairs",
        columns={"prompt": "prompt", "completion": "completion", "label": "label"},
        needed=("prompt", "completion", "label"),
        decode=decode_kto,
        encode=encode_kto,
        fits=lambda row: isinstance(row["label"], bool),
        over=("completion", "text", "text-label"),
    ),
)
