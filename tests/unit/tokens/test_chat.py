"""Rendering chats: as transformers does, whatever a published template uses; a refusal is one sentence."""

from __future__ import annotations

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from espalier.core.errors import InvalidInput
from espalier.core.types import Message
from espalier.tokens.chat import CHATML, render_chat, template_digest

TURNS = [Message("user", "a\nb"), Message("assistant", "<é/>"), Message("user", "  c ")]
TEMPLATES = {
    "ChatML": CHATML,
    "blocks on their own lines": (
        "{{ bos_token }}{% for m in messages %}\n    {% if m.role == 'user' %}\n[U] {{ m.content | trim }}\n"
        "    {% else %}\n[A] {{ m.content | tojson }}\n    {% endif %}\n{% endfor %}\n"
        "{% if add_generation_prompt %}[A]{% endif %}"
    ),
    "loop controls": (
        "{% for m in messages %}{% if loop.index0 == 1 %}{% continue %}{% endif %}"
        "{{ m['role'] }}: {{ m['content'] }};{% endfor %}"
    ),
    "namespace": (
        "{% set ns = namespace(n=0) %}{% for m in messages %}"
        "{% set ns.n = ns.n + 1 %}{{ ns.n }}.{{ m.content }}{% endfor %}"
    ),
}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES.keys())
@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_a_template_renders_as_in_transformers(template: str, add_generation_prompt: bool) -> None:
    rows = [{"role": turn.role, "content": turn.content} for turn in TURNS]
    theirs, _ = render_jinja_template(
        conversations=[rows], chat_template=template, add_generation_prompt=add_generation_prompt, bos_token="<s>"
    )
    ours = render_chat(
        template, TURNS, add_generation_prompt=add_generation_prompt, special_tokens={"bos_token": "<s>"}
    )
    assert ours == theirs[0]


def test_a_template_that_refuses_gives_its_own_reason() -> None:
    with pytest.raises(InvalidInput, match="must alternate"):
        render_chat("{{ raise_exception('roles must alternate') }}", TURNS)


def test_a_broken_template_is_the_models_fault_not_a_crash() -> None:
    with pytest.raises(InvalidInput, match="chat template"):
        render_chat("{% for %}", TURNS)


def test_a_template_cannot_reach_the_machine() -> None:
    with pytest.raises(InvalidInput):
        render_chat("{{ ''.__class__.__mro__[1].__subclasses__() }}", TURNS)


def test_one_changed_character_changes_the_digest() -> None:
    assert template_digest(CHATML) != template_digest(CHATML + " ")
