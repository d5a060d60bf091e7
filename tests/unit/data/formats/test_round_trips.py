"""What a format takes it gives back: encode then decode is the identity, or a refusal with a reason."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.core.errors import InvalidInput
from espalier.core.types import Example, Message
from espalier.data.formats.format import FORMATS, decode_row, encode_example, find_format, fitting_formats

WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(lambda text: text.strip())
WEIGHTS = st.none() | st.sampled_from([0.0, 1.0, 0.5])


@st.composite
def conversations(draw: st.DrawFn) -> Example:
    turns = [Message("system", draw(WORDS))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        turns.append(Message("user", draw(WORDS)))
        if draw(st.integers(0, 9)) == 0:
            turns.append(Message("tool", draw(WORDS)))
        turns.append(Message("assistant", draw(WORDS), draw(WEIGHTS) if draw(st.booleans()) else None))
    tags = {"desirable": draw(st.sampled_from(["true", "false"]))} if draw(st.booleans()) else {}
    return Example("ex_1", turns, tags=tags)


@st.composite
def pairs(draw: st.DrawFn) -> Example:
    prompt = [Message("user", draw(WORDS))]
    if draw(st.booleans()):
        prompt = [Message("system", draw(WORDS)), *prompt]
    chosen, rejected = draw(WORDS), draw(WORDS)
    if chosen == rejected:
        rejected += "!"
    return Example("ex_1", prompt, chosen=[Message("assistant", chosen)], rejected=[Message("assistant", rejected)])


EXAMPLES = conversations() | pairs() | st.builds(lambda text: Example("ex_1", text=text), WORDS)


@pytest.mark.parametrize("name", FORMATS)
@given(example=EXAMPLES)
def test_what_a_format_takes_it_gives_back_and_the_rest_it_refuses(name: str, example: Example) -> None:
    try:
        row = encode_example(example, name)
    except InvalidInput as refusal:
        assert refusal.message
        return
    decoded = decode_row(json.loads(json.dumps(row)), name)
    if name == "text-label":  # a label is a name, so white space around it says nothing
        decoded.messages[-1].content = example.messages[-1].content
        assert decoded.tags["label"] == example.messages[-1].content.strip()
    assert (decoded.messages, decoded.text) == (example.messages, example.text)
    assert (decoded.chosen, decoded.rejected) == (example.chosen, example.rejected)
    if name == "kto":
        assert decoded.tags["desirable"] == example.tags["desirable"]
    assert decoded.form == name


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_takes_some_example(name: str) -> None:
    question, answer = Message("user", "q"), Message("assistant", "a")
    kinds = [
        Example("c", [question, answer], tags={"desirable": "true"}),
        Example("t", text="t"),
        Example("p", [question], chosen=[answer], rejected=[Message("assistant", "b")]),
    ]
    taken = []
    for example in kinds:
        try:
            row = encode_example(example, name)
        except InvalidInput:
            continue
        taken.append(example.id)
        # A row we write is recognised as what it is, but where two formats write the same row.
        same = {"bedrock-completion": "completion", "bedrock-claude": "openai-chat"}
        assert same.get(name, name) in [shape.name for shape in fitting_formats(row)]
    assert len(taken) == 1


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
def test_any_json_is_a_row_of_the_format_or_refused(name: str, data: st.DataObject) -> None:
    columns = sorted(find_format(name).columns.values())
    turn = st.dictionaries(
        st.sampled_from(["role", "content", "weight", "from", "value", "text"]),
        JSON_VALUES | st.sampled_from(["user", "assistant", "human", "gpt"]),
    )
    row = data.draw(st.dictionaries(st.sampled_from([*columns, "tools"]), JSON_VALUES | st.lists(turn, max_size=3)))
    fitting_formats(row)
    try:
        decoded = decode_row(row, name)
    except InvalidInput as refusal:
        assert refusal.message
        return
    turns = [*decoded.messages, *decoded.chosen, *decoded.rejected]
    assert decoded.text.strip() or turns
    assert all(turn.content.strip() for turn in turns)
