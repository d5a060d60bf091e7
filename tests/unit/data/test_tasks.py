from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.types import Document, Message
from espalier.data.answers import count_labels, read_fields
from espalier.data.readers.source import SourceFile
from espalier.data.tasks.conversations import ChatTask, CompletionTask, parse_conversation, read_conversations
from espalier.data.tasks.extraction import (
    ExtractionTask,
    check_labelled,
    compile_key,
    find_keys,
    make_example,
    read_labels,
    render_plain,
)

MakeDocument = Callable[..., Document]
MakeSource = Callable[[str, bytes], SourceFile]
TASK = ExtractionTask(labels="records.jsonl", key=r"T-\d+")


def write_labels(folder: Path, *rows: object) -> Path:
    path = folder / "records.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


# Extraction


def test_a_document_is_matched_to_its_record_by_the_key_in_its_text(tmp_path: Path, document: MakeDocument) -> None:
    labels = read_labels(
        write_labels(tmp_path, {"ref": "T-1", "record": " <a/>\n"}, {"ref": "T-2", "record": "x"}), TASK
    )
    documents = [document("see T-1", 1), document("nothing here", 2), document("T-9", 3)]
    keys = find_keys(documents, TASK)
    out = check_labelled(documents, keys, labels, TASK)
    assert [d.dropped_because for d in out] == [
        "",
        r"no key: T-\d+ found nothing in its text",
        "no label: records.jsonl has none for T-9",
    ]
    assert labels.used == {"T-1"} and labels.answers["T-1"] == "<a/>"
    example = make_example(documents[0], labels.answers["T-1"], render_plain)
    assert example.messages == [Message("user", "see T-1"), Message("assistant", "<a/>")]
    assert example.documents == ["doc.1"] and example.id == "ex_doc.1"


def test_the_key_may_stand_in_a_group_the_path_or_a_column(document: MakeDocument) -> None:
    one = document("number: 7 of T-1", 5, ticket="T-44")

    def key(expression: str, place: str) -> str:
        task = ExtractionTask(labels="x", key=expression, key_from=place)
        return find_keys([one], task)["doc.5"]

    assert key(r"number: (\d+)", "text") == "7"
    assert key(r"T-\d+", "tag:ticket") == "T-44"
    assert key(r"file-(\d)", "uri") == "5"


def test_a_key_that_is_no_regular_expression_is_refused() -> None:
    with pytest.raises(InvalidInput, match="not a regular expression") as refusal:
        compile_key("T-(")
    assert refusal.value.where == "task.key"


@pytest.mark.parametrize(
    ("rows", "where", "message"),
    [
        (({"ref": "1", "record": "a"}, "{nope"), "records.jsonl:2", "not JSON"),
        (({"ref": "1", "recrod": "a"},), "records.jsonl:1", "no field 'record'"),
        (({"ref": "1", "record": "a"}, {"ref": "1", "record": "b"}), "records.jsonl:2", "a second label for '1'"),
        ((), "records.jsonl", "holds no label"),
    ],
)
def test_bad_labels_are_refused_with_file_and_line(
    tmp_path: Path, rows: tuple[object, ...], where: str, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message) as refusal:
        read_labels(write_labels(tmp_path, *rows), TASK)
    assert refusal.value.where == where


def test_a_misspelt_label_field_gets_a_hint(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as refusal:
        read_labels(write_labels(tmp_path, {"ref": "1", "recrod": "a"}), TASK)
    assert refusal.value.hint == "did you mean `recrod`?"


def test_missing_labels_are_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="with labels"):
        read_labels(tmp_path / "records.jsonl", TASK)


def test_a_record_that_is_an_object_is_written_as_json(tmp_path: Path) -> None:
    labels = read_labels(write_labels(tmp_path, {"ref": 1, "record": {"b": "ü", "a": 1}}), TASK)
    assert labels.answers == {"1": '{"b": "ü", "a": 1}'}


# Conversations

CHAT = {
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
    ]
}


def test_chat_lines_become_messages_with_their_weights() -> None:
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a", "weight": 0},
        {"role": "assistant", "content": "b"},
    ]
    line = json.dumps({"messages": turns})
    messages = parse_conversation(line, ChatTask())
    assert [(m.role, m.content, m.weight) for m in messages] == [
        ("user", "q", None),
        ("assistant", "a", 0.0),
        ("assistant", "b", None),
    ]


def test_prompt_and_completion_become_two_messages() -> None:
    task = CompletionTask(prompt="question", completion="answer", system="rules")
    messages = parse_conversation('{"question": "q", "answer": "a", "rules": "r", "id": 7}', task)
    assert [(m.role, m.content) for m in messages] == [("system", "r"), ("user", "q"), ("assistant", "a")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{}", "`messages` must be a list"),
        ('{"messages": []}', "`messages` must be a list"),
        ('{"messages": ["hi"]}', r"messages\[0\] is not an object"),
        ('{"messages": [{"role": "bot", "content": "x"}]}', r"messages\[0\]\.role is 'bot'"),
        ('{"messages": [{"role": ["user"], "content": "x"}]}', r"messages\[0\]\.role is \['user'\]"),
        ('{"messages": [{"role": "user", "content": null}]}', r"messages\[0\]\.content must be a text"),
        ('{"messages": [{"role": "user", "content": "q"}]}', "the last message is the user's"),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', "no user message"),
        ('{"messages": [{"role": "assistant", "content": "a", "weight": "x"}]}', r"messages\[0\]\.weight is 'x'"),
    ],
)
def test_a_chat_line_that_teaches_nothing_is_refused(line: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        parse_conversation(line, ChatTask())


def test_bad_chat_lines_are_dropped_with_file_and_line_and_the_others_kept(source: MakeSource) -> None:
    file = source("c.jsonl", f"{json.dumps(CHAT)}\n{{broken\n\n{json.dumps(CHAT)}\n".encode())
    found = read_conversations([file, source("d.md", b"# text")], ChatTask())
    assert [d.dropped_because for d in found.reading.documents] == [
        "",
        "unreadable: c.jsonl:2: not JSON: Expecting property name enclosed in double quotes at column 2",
        "",
    ]
    assert found.reading.documents[2].tags["line"] == "4" and found.reading.documents[0].text == "s\n\nq\n\na"
    assert [item.uri for item in found.reading.skipped] == ["d.md"]


def test_a_bad_chat_line_stops_the_import_when_asked_to(source: MakeSource) -> None:
    with pytest.raises(InvalidInput) as refusal:
        read_conversations([source("c.jsonl", b"{broken\n")], ChatTask(), on_error="fail")
    assert refusal.value.where == "c.jsonl:1"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3)
)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["role", "content", "weight"]), JSON_VALUES | st.sampled_from(["user", "assistant"])
        )
    )
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_json_is_a_conversation_or_refused(turns: list[dict[str, object]]) -> None:
    try:
        messages = parse_conversation(json.dumps({"messages": turns}), ChatTask())
    except InvalidInput:
        return
    assert messages[-1].role == "assistant" and all(message.content.strip() for message in messages)


# Answers


def test_fields_of_xml_and_json_answers_are_read_by_path() -> None:
    inner = '<x:unit>Pump</x:unit><x:v cause="A" grade="red"/><x:a><x:b>deep</x:b></x:a>'
    xml = f'<x:r xmlns:x="urn:x" no="1">\n{inner}</x:r>'
    assert read_fields(xml) == {"@no": "1", "unit": "Pump", "v@cause": "A", "v@grade": "red", "a/b": "deep"}
    assert read_fields('{"a": {"b": 1}, "c": "x", "d": null}') == {"a.b": "1", "c": "x"}
    assert read_fields("plain") == read_fields("<broken") == read_fields("{broken") == {}


def test_an_entity_in_an_answer_is_not_expanded() -> None:
    bomb = '<!DOCTYPE r [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><r><x>&b;</x></r>'
    assert "haha" not in str(read_fields(bomb))


def test_only_fields_of_few_values_are_counted_as_labels() -> None:
    answers = [f'<r no="{n}"><v cause="{"AB"[n % 2]}"/></r>' for n in range(40)]
    assert count_labels(answers) == {"v@cause": {"A": 20, "B": 20}}
