"""Rows as their own tools write them, and what is refused in them."""

from __future__ import annotations

from typing import Any

import pytest

from espalier.core.errors import InvalidInput
from espalier.core.types import Example, Message
from espalier.data.formats.format import decode_row, encode_example

USER, ANSWER = Message("user", "q"), Message("assistant", "a")
CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    ("name", "row", "messages"),
    [
        ("openai-chat", {"messages": CHAT, "tools": None, "id": 7}, [USER, ANSWER]),
        (
            "openai-chat",
            {"messages": [{"role": "developer", "content": "s"}, *CHAT]},
            [Message("system", "s"), USER, ANSWER],
        ),
        (
            "openai-chat",
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, {**CHAT[1], "weight": 0}]},
            [USER, Message("assistant", "a", 0.0)],
        ),
        (
            "bedrock-conversation",
            {
                "schemaVersion": "bedrock-conversation-2024",
                "system": [{"text": "s"}],
                "messages": [{"role": turn["role"], "content": [{"text": turn["content"]}]} for turn in CHAT],
            },
            [Message("system", "s"), USER, ANSWER],
        ),
        ("bedrock-claude", {"system": "s", "messages": CHAT}, [Message("system", "s"), USER, ANSWER]),
        ("alpaca", {"instruction": "q", "input": "", "output": "a", "text": "all of it"}, [USER, ANSWER]),
        ("alpaca", {"instruction": "i", "input": "x", "output": "a"}, [Message("user", "i\n\nx"), ANSWER]),
        (
            "alpaca",
            {"instruction": "q", "output": "a", "system": "s", "history": [["q0", "a0"]]},
            [Message("system", "s"), Message("user", "q0"), Message("assistant", "a0"), USER, ANSWER],
        ),
        (
            "sharegpt",
            {
                "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a", "weight": 1}],
                "system": "s",
            },
            [Message("system", "s"), USER, Message("assistant", "a", 1.0)],
        ),
        (
            "sharegpt",
            {"conversations": [{"from": name, "value": "x"} for name in ("user", "observation", "model")]},
            [Message("user", "x"), Message("tool", "x"), Message("assistant", "x")],
        ),
        ("completion", {"prompt": "q", "completion": "a"}, [USER, ANSWER]),
        ("completion", {"prompt": CHAT[:1], "completion": CHAT[1:]}, [USER, ANSWER]),
        ("completion", {"prompt": 2, "completion": 4.5}, [Message("user", "2"), Message("assistant", "4.5")]),
        ("question-answer", {"question": "q", "answer": "a"}, [USER, ANSWER]),
        (
            "question-answer",
            {"context": "c", "question": "q", "answer": {"text": ["a", "b"], "answer_start": [1, 2]}},
            [Message("user", "c\n\nq"), ANSWER],
        ),
    ],
)
def test_conversations_are_read_as_their_tools_write_them(
    name: str, row: dict[str, Any], messages: list[Message]
) -> None:
    assert decode_row(row, name).messages == messages


PAIR = ([USER], [ANSWER], [Message("assistant", "b")])


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("preference", {"prompt": "q", "chosen": "a", "rejected": "b"}),
        ("preference", {"prompt": CHAT[:1], "chosen": CHAT[1:], "rejected": [{"role": "assistant", "content": "b"}]}),
        # UltraFeedback repeats the prompt on both sides.
        ("preference", {"prompt": "q", "chosen": CHAT, "rejected": [CHAT[0], {"role": "assistant", "content": "b"}]}),
        # Without a prompt, what both begin with is one.
        ("preference", {"chosen": CHAT, "rejected": [CHAT[0], {"role": "assistant", "content": "b"}]}),
        # HH-RLHF
        ("preference", {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"}),
        (
            "openai-preference",
            {
                "input": {"messages": CHAT[:1], "tools": [], "parallel_tool_calls": None},
                "preferred_output": CHAT[1:],
                "non_preferred_output": [{"role": "assistant", "content": "b"}],
            },
        ),
    ],
)
def test_pairs_are_a_prompt_and_two_ways_it_goes_on(name: str, row: dict[str, Any]) -> None:
    decoded = decode_row(row, name)
    assert (decoded.messages, decoded.chosen, decoded.rejected) == PAIR


def test_a_verdict_of_kto_is_kept_as_a_tag() -> None:
    decoded = decode_row({"prompt": "q", "completion": "a", "label": False}, "kto")
    assert decoded.messages == [USER, ANSWER] and decoded.tags == {"desirable": "false"}


def test_columns_may_have_other_names() -> None:
    decoded = decode_row({"frage": "q", "antwort": "a"}, "completion", {"prompt": "frage", "completion": "antwort"})
    assert decoded.messages == [USER, ANSWER]
    with pytest.raises(InvalidInput, match="completion has no column 'promt'") as refusal:
        decode_row({}, "completion", {"promt": "frage"})
    assert refusal.value.hint == "did you mean `prompt`?"


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("openai-chat", {"messages": CHAT, "tools": [{}]}, "`tools` cannot be held"),
        ("openai-chat", {"messages": CHAT, "functions": [{}]}, "`functions` cannot be held"),
        ("openai-chat", {"messages": [*CHAT, {"role": "assistant", "tool_calls": [{}]}]}, r"messages\[2\]\.tool_calls"),
        ("openai-chat", {"messages": [{**CHAT[0], "name": "bob"}, CHAT[1]]}, r"messages\[0\]\.name cannot be held"),
        (
            "openai-chat",
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, CHAT[1]]},
            r"messages\[0\]\.content\[0\] is no text part but image_url",
        ),
        ("openai-chat", {"messages": [{**CHAT[1], "weight": float("nan")}]}, r"weight is nan"),
        ("bedrock-conversation", {"schemaVersion": "2023", "messages": CHAT}, "`schemaVersion` is '2023'"),
        ("bedrock-conversation", {"messages": CHAT}, r"messages\[0\]\.content must be a list of parts"),
        (
            "bedrock-conversation",
            {"messages": [{"role": "user", "content": [{"image": {"format": "png"}}]}]},
            "no text part but image",
        ),
        (
            "bedrock-conversation",
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}]},
            "parts with a `type`",
        ),
        ("bedrock-claude", {"messages": [{"role": "user", "content": [{"text": "q"}]}]}, "must be a text, not a list"),
        ("sharegpt", {"conversations": [{"from": "function_call", "value": "{}"}]}, "from is 'function_call'"),
        ("sharegpt", {"conversations": [], "tools": "[]"}, "`tools` cannot be held"),
        (
            "sharegpt",
            {"conversations": [{"from": "system", "value": "s"}, {"from": "gpt", "value": "a"}], "system": "s"},
            "two system texts",
        ),
        ("alpaca", {"instruction": "q", "output": " "}, "`output` must be a text that is not empty"),
        (
            "alpaca",
            {"instruction": "q", "output": "a", "history": [["q0"]]},
            r"history\[0\] must be a question and an answer",
        ),
        ("completion", {"prompt": {"a": 1}, "completion": "a"}, "`prompt` must be a text, not an object"),
        ("question-answer", {"question": "q", "answer": {"text": [], "answer_start": []}}, "holds no answer"),
        ("preference", {"prompt": "q", "chosen": "a", "rejected": "a"}, "are the same"),
        ("preference", {"chosen": "a", "rejected": "b"}, "the prompt is empty"),
        ("preference", {"prompt": CHAT, "chosen": "a", "rejected": "b"}, "ends with the assistant's turn"),
        ("kto", {"prompt": "q", "completion": "a", "label": "yes"}, "`label` is 'yes'"),
        ("text", {"text": "\n"}, "`text` must be a text that is not empty"),
    ],
)
def test_what_cannot_be_held_is_refused_with_a_reason(name: str, row: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        decode_row(row, name)


@pytest.mark.parametrize(
    ("name", "example", "reason"),
    [
        ("alpaca", Example("x", [USER, Message("assistant", "a", 0.5)]), "turn 2 has the weight 0.5"),
        ("alpaca", Example("x", [USER, USER, ANSWER]), "do not take turns"),
        ("bedrock-conversation", Example("x", [USER, Message("tool", "t"), ANSWER]), "turn 2 is the tool's"),
        ("bedrock-completion", Example("x", [Message("system", "s"), USER, ANSWER]), "a system turn"),
        ("question-answer", Example("x", [USER, ANSWER, USER, ANSWER]), "holds one question and one answer"),
        ("openai-chat", Example("x", text="t"), "raw text, which openai-chat cannot hold"),
        ("text", Example("x", [USER, ANSWER]), "a conversation, which text cannot hold"),
        ("kto", Example("x", [USER, ANSWER]), "no tag `desirable`"),
        ("preference", Example("x", [USER, ANSWER]), "no preference pair"),
        ("sharegpt", Example("x", [USER], chosen=[ANSWER], rejected=[USER]), "a preference pair"),
    ],
)
def test_an_example_that_a_format_cannot_hold_is_refused_with_a_reason(
    name: str, example: Example, reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        encode_example(example, name)
