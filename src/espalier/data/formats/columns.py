"""Rows of plain columns: Alpaca, prompt/completion, question/answer, text/label and raw text.

Columns and their names: https://github.com/tatsu-lab/stanford_alpaca#data-release,
https://huggingface.co/docs/trl/dataset_formats, https://llamafactory.readthedocs.io (Alpaca's `system`, `history`).
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
    read_turns,
    refuse_roles,
    refuse_weights,
    split_system,
)

_TRL = "https://huggingface.co/docs/trl/dataset_formats"


def decode_alpaca(row: Row, columns: Mapping[str, str]) -> Decoded:
    """The instruction, a blank line and the input are the user's turn; earlier exchanges come from `history`."""
    messages = _system(row, columns["system"])
    for index, pair in enumerate(row.get(columns["history"]) or []):
        where = f"{columns['history']}[{index}]"
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) and text for text in pair)):
            raise InvalidInput(f"{where} must be a question and an answer", hint='"history": [["...", "..."]]')
        messages += [Message("user", pair[0]), Message("assistant", pair[1])]
    instruction, given = read_text(row, columns["instruction"]), read_optional(row, columns["input"])
    question = f"{instruction}\n\n{given}" if given.strip() else instruction
    return Decoded([*messages, Message("user", question), Message("assistant", read_text(row, columns["output"]))])


def encode_alpaca(example: Example) -> dict[str, object]:
    """Questions and answers in turn, the last ones in instruction and output, earlier ones in `history`."""
    messages = conversation_of(example, "alpaca")
    refuse_weights(messages, "alpaca")
    system, turns = split_system(messages)
    refuse_roles(turns, ("user", "assistant"), "alpaca")
    if [turn.role for turn in turns] != ["user", "assistant"] * (len(turns) // 2):
        raise InvalidInput("user and assistant do not take turns, which alpaca needs", hint="write it as openai-chat")
    said = [turn.content for turn in turns]
    pairs = [list(pair) for pair in zip(said[:-2:2], said[1:-2:2], strict=True)]
    row: dict[str, object] = {"instruction": said[-2], "input": "", "output": said[-1]}
    return row | ({"system": system} if system else {}) | ({"history": pairs} if pairs else {})


def decode_completion(row: Row, columns: Mapping[str, str]) -> Decoded:
    """Texts, or TRL's conversational kind: a list of turns in either column."""
    asked, answered = row.get(columns["prompt"]), row.get(columns["completion"])
    if isinstance(asked, list) or isinstance(answered, list):
        messages = [
            *(
                read_turns(asked, columns["prompt"])
                if isinstance(asked, list)
                else _turn(row, columns["prompt"], "user")
            ),
            *(
                read_turns(answered, columns["completion"])
                if isinstance(answered, list)
                else _turn(row, columns["completion"], "assistant")
            ),
        ]
    else:
        messages = [*_turn(row, columns["prompt"], "user"), *_turn(row, columns["completion"], "assistant")]
    messages = [*_system(row, columns["system"]), *messages]
    check_conversation(messages)
    return Decoded(messages)


def encode_completion(example: Example) -> dict[str, object]:
    """One exchange; a system turn has a column of its own."""
    system, question, answer = exchange_of(example, "completion", system=True)
    row: dict[str, object] = {"prompt": question, "completion": answer}
    return row | ({"system": system} if system else {})


def decode_question(row: Row, columns: Mapping[str, str]) -> Decoded:
    """The context, a blank line and the question are the user's turn. Of SQuAD's several answers the first counts."""
    context, question = read_optional(row, columns["context"]), read_text(row, columns["question"])
    asked = f"{context}\n\n{question}" if context.strip() else question
    return Decoded([Message("user", asked), Message("assistant", read_answer(row, columns["answer"]))])


def read_answer(row: Row, name: str) -> str:
    """A text, or SQuAD's {"text": [...], "answer_start": [...]}; raises InvalidInput when there is no answer."""
    value: Any = row.get(name)
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        value = value["text"]
    if isinstance(value, list):
        if not value:
            raise InvalidInput(
                f"`{name}` holds no answer", hint="such a question is unanswerable: give a refusal to learn"
            )
        return read_text({name: value[0]}, name)
    return read_text(row, name)


def encode_question(example: Example) -> dict[str, object]:
    """One exchange without a system turn."""
    _, question, answer = exchange_of(example, "question-answer", system=False)
    return {"question": question, "answer": answer}


def decode_label(row: Row, columns: Mapping[str, str]) -> Decoded:
    """The text as the user's turn, the label as the answer and as the tag `label`."""
    text, label = read_text(row, columns["text"]), read_text(row, columns["label"]).strip()
    return Decoded([Message("user", text), Message("assistant", label)], tags={"label": label})


def encode_label(example: Example) -> dict[str, object]:
    """One exchange; the answer is the label."""
    _, text, label = exchange_of(example, "text-label", system=False)
    return {"text": text, "label": label}


def decode_text(row: Row, columns: Mapping[str, str]) -> Decoded:
    """Raw text."""
    return Decoded(text=read_text(row, columns["text"]))


def encode_text(example: Example) -> dict[str, object]:
    """Raw text; a conversation is none, for what its text would be is the business of a chat template."""
    if example.messages or example.chosen:
        raise InvalidInput("a conversation, which text cannot hold", hint="write it as openai-chat")
    return {"text": example.text}


def _system(row: Row, name: str) -> list[Message]:
    text = read_optional(row, name)
    return [Message("system", text)] if text.strip() else []


def _turn(row: Row, name: str, role: Any) -> list[Message]:
    return [Message(role, read_text(row, name))]


FORMATS = (
    Format(
        name="alpaca",
        title="Alpaca",
        url="https://github.com/tatsu-lab/stanford_alpaca#data-release",
        holds="conversations",
        columns={name: name for name in ("instruction", "input", "output", "system", "history")},
        needed=("instruction", "output"),
        decode=decode_alpaca,
        encode=encode_alpaca,
        over=("text", "text-label"),
    ),
    Format(
        name="completion",
        title="prompt and completion",
        url=_TRL,
        holds="conversations",
        columns={name: name for name in ("prompt", "completion", "system")},
        needed=("prompt", "completion"),
        decode=decode_completion,
        encode=encode_completion,
        over=("text", "text-label"),
    ),
    Format(
        name="question-answer",
        title="question and answer",
        url="https://huggingface.co/datasets/rajpurkar/squad",
        holds="conversations",
        columns={name: name for name in ("question", "answer", "context")},
        needed=("question", "answer"),
        decode=decode_question,
        encode=encode_question,
        over=("text", "text-label"),
    ),
    Format(
        name="text-label",
        title="text and label",
        url="https://huggingface.co/docs/datasets/about_dataset_features",
        holds="labels",
        columns={"text": "text", "label": "label"},
        needed=("text", "label"),
        decode=decode_label,
        encode=encode_label,
        over=("text",),
    ),
    Format(
        name="text",
        title="raw text",
        url=_TRL,
        holds="text",
        columns={"text": "text"},
        needed=("text",),
        decode=decode_text,
        encode=encode_text,
    ),
)
