"""Questions asked through a prompt version: of a conversation, and of a preference pair."""

from __future__ import annotations

from dataclasses import replace

from espalier.core.types import Example, Message, Prompt
from espalier.services.rendering import render_example

PROMPT = Prompt(name="brief", version=1, template="Question: {{ input }}", system="Be brief.", digest="d")
ASKED = [Message("user", "How far is the moon?")]
SAID = [Message("assistant", "A light second.")]
RENDERED = [Message("system", "Be brief."), Message("user", "Question: How far is the moon?")]


def test_a_conversation_keeps_its_answer() -> None:
    assert render_example(Example("c", [*ASKED, *SAID]), PROMPT).messages == [*RENDERED, *SAID]


def test_a_pair_keeps_both_its_answers() -> None:
    pair = Example("p", ASKED, chosen=SAID, rejected=[Message("assistant", "Far.")])
    assert render_example(pair, PROMPT) == replace(pair, messages=RENDERED)


def test_raw_text_stays_as_it_is() -> None:
    text = Example("t", text="The moon is far.")
    assert render_example(text, PROMPT) is text
