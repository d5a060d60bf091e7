from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.core.errors import InvalidInput
from espalier.core.types import Example, Message, Prompt
from espalier.prompts.template import find_variables, make_prompt, render, render_case, variables_of


def prompt(template: str, system: str = "") -> Prompt:
    return make_prompt("support", template, system)


def example(question: str, answer: str, *before: Message, **tags: str) -> Example:
    turns = [*before, Message("user", question), Message("assistant", answer)]
    return Example(id=question, messages=turns, tags=tags)


def turns(messages: list[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in messages]


def test_variables_are_found_without_rendering_and_exclude_those_the_template_sets_itself() -> None:
    made = prompt(
        "{% set mood = tone %}{{ input }} {{ mood }}{% for i in range(2) %}{{ i }}{% endfor %}", "{{ house }}"
    )
    assert made.variables == ("house", "input", "tone")


def test_the_digest_covers_both_templates_and_nothing_else() -> None:
    assert make_prompt("a", "{{ input }}", "s", note="x").digest == make_prompt("b", "{{ input }}", "s").digest
    assert prompt("{{ input }}", "s").digest != prompt("{{ input }}", "t").digest
    assert prompt("ab", "c").digest != prompt("a", "bc").digest


def test_a_syntax_error_names_the_file_and_the_line() -> None:
    with pytest.raises(InvalidInput) as caught:
        make_prompt("support", "fine\n{{ input }\nmore", source="support.jinja")
    assert caught.value.where == "support.jinja:2"


def test_a_missing_variable_is_named_with_its_line_and_the_nearest_one_given() -> None:
    with pytest.raises(InvalidInput, match="no value for customer") as caught:
        render(prompt("a\nb {{ customer }}"), {"custmer": "x"})
    assert caught.value.where == "support template:2"
    assert caught.value.hint == "did you mean `custmer`?"


def test_a_template_that_fails_while_it_runs_is_the_users_error_with_a_line() -> None:
    with pytest.raises(InvalidInput) as caught:
        render(prompt("x\n\n{{ 1 / (input | length) }}"), {"input": ""})
    assert caught.value.where == "support template:3"


def test_a_template_that_tests_for_a_variable_does_without_it() -> None:
    made = prompt("{% if tone is defined %}{{ tone }}: {% endif %}{{ input }}")
    assert render(made, {"input": "hi"})[-1].content == "hi"
    assert render(made, {"input": "hi", "tone": "kind"})[-1].content == "kind: hi"


def test_a_loop_runs_and_chance_is_not_to_be_had() -> None:
    assert render(prompt("{% for i in range(3) %}{{ i }}{% endfor %}{{ input }}"), {"input": "!"})[-1].content == "012!"
    for source in ("{{ input | random }}", "{{ lipsum() }}"):
        with pytest.raises(InvalidInput):
            render(prompt(source), {"input": "abc"})


@pytest.mark.parametrize("attack", ["{{ ''.__class__.__mro__ }}", "{{ input.__init__.__globals__ }}"])
def test_the_sandbox_refuses_pythons_internals(attack: str) -> None:
    with pytest.raises(InvalidInput):
        render(prompt(attack), {"input": "x"})


@pytest.mark.parametrize("template", ["{% include 'x' %}", "{% extends 'x' %}", "{% import 'x' as y %}{{ input }}"])
def test_a_template_that_needs_another_file_is_refused(template: str) -> None:
    with pytest.raises(InvalidInput, match="another template"):
        prompt(template)


def test_an_empty_template_is_refused() -> None:
    with pytest.raises(InvalidInput, match="empty"):
        prompt(" \n")


def test_shots_become_alternating_turns_through_the_same_template() -> None:
    made = prompt("Ticket: {{ input }}", "You write {{ form }}.")
    shots = [example("one", "1"), example("two", "2")]
    assert turns(render(made, {"input": "three", "form": "digits"}, shots)) == [
        ("system", "You write digits."),
        ("user", "Ticket: one"),
        ("assistant", "1"),
        ("user", "Ticket: two"),
        ("assistant", "2"),
        ("user", "Ticket: three"),
    ]


def test_a_case_keeps_its_history_and_its_own_system_turn_when_the_prompt_has_none() -> None:
    history = (Message("system", "S"), Message("user", "q1"), Message("assistant", "a1"))
    case = example("q2", "a2", *history)
    shown = turns(render_case(prompt("<{{ input }}>"), case, [example("s", "t")]))
    assert shown == [
        ("system", "S"), ("user", "<s>"), ("assistant", "t"), ("user", "q1"), ("assistant", "a1"), ("user", "<q2>"),
    ]  # fmt: skip
    assert turns(render_case(prompt("{{ input }}", "mine"), case))[0] == ("system", "mine")


def test_tags_are_variables_but_never_hide_the_question() -> None:
    assert variables_of(example("q", "a", input="no", channel="mail")) == {"input": "q", "channel": "mail"}


@pytest.mark.parametrize("messages", [[], [Message("user", "q")], [Message("assistant", "a")]])
def test_an_example_without_question_and_answer_cannot_be_shown(messages: list[Message]) -> None:
    with pytest.raises(InvalidInput, match="not"):
        render_case(prompt("{{ input }}"), Example(id="e7", messages=messages))


@given(st.text())
def test_the_value_of_a_variable_is_text_and_never_a_template(text: str) -> None:
    assert render(prompt("[{{ input }}]"), {"input": text})[-1].content == f"[{text}]"


@given(st.text(max_size=60))
def test_any_text_is_either_a_template_or_an_error_with_a_line(text: str) -> None:
    try:
        find_variables(text, "file")
    except InvalidInput as error:
        assert error.where.startswith("file:")
