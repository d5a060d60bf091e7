"""Tasks over rows and documents: what they make of a batch, before cleaning and after it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pytest
from pydantic import TypeAdapter

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.types import Document, Example, Message, Span
from espalier.data.flow.batch import set_column, to_batch
from espalier.data.flow.outcome import Outcome, apply_outcome
from espalier.data.formats.format import FORMATS
from espalier.data.tasks.specs import TaskSpec, list_specs
from espalier.data.tasks.task import find_kind, prepare_task, task_files, task_id
from espalier.store.examples import SCHEMA, read_examples, write_examples

TASK: TypeAdapter[Any] = TypeAdapter(TaskSpec)
SOURCE = '''import os


class A:
    @property
    def f(self):
        """Doc of é."""
        y = 1
        return y


def g():
    pass


def h():
    """H."""
    a = 1
    return a
'''
CALL = """Agent: Hello.
How can I help?
Customer: My pump is broken: it leaks.
Customer: Badly.
Agent: Oh.
Customer: Bye."""


class Made:
    """A task run over one batch: its outcome, and the examples of what is left."""

    def __init__(self, outcome: Outcome, batch: pa.RecordBatch, examples: list[Example]) -> None:
        self.outcome, self.batch, self.examples = outcome, batch, examples

    @property
    def reasons(self) -> list[str]:
        return [] if self.outcome.reasons is None else [reason for reason in self.outcome.reasons.to_pylist() if reason]

    @property
    def messages(self) -> list[list[tuple[str, str]]]:
        return [[(turn.role, turn.content) for turn in example.messages] for example in self.examples]


def run(
    spec: Mapping[str, Any],
    rows: Sequence[Any] = (),
    documents: Sequence[tuple[str, str]] = (),
    folder: Path = Path(),
    **tags: str,
) -> Made:
    """The task over rows of data.jsonl and whole documents (uri, text)."""
    task = prepare_task(TASK.validate_python(spec), folder)
    found = [Document(f"r.{n}", "", Span("0", "data.jsonl"), {"line": str(n)}) for n in range(1, len(rows) + 1)]
    found += [Document(f"d.{n}", text, Span("1", uri), dict(tags)) for n, (uri, text) in enumerate(documents, 1)]
    fields = [json.dumps(row) for row in rows] + [""] * len(documents)
    batch = set_column(to_batch(found), "row", pa.array(fields, pa.large_string()))
    outcome = task.parse(batch)
    batch = apply_outcome(batch, outcome)
    made = task.make_examples(batch)
    assert made.schema.equals(SCHEMA) and len(made) == len(batch)
    return Made(outcome, batch, list(to_examples(made)))


def to_examples(batch: pa.RecordBatch) -> list[Example]:
    def turns(found: Any) -> list[Message]:
        return [Message(**turn) for turn in found]

    return [
        Example(
            row["id"],
            turns(row["messages"]),
            row["text"],
            turns(row["chosen"]),
            turns(row["rejected"]),
            row["split"],
            row["documents"],
            dict(row["tags"]),
        )
        for row in batch.to_pylist()
    ]


CHAT = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 0}]}


# Conversations


def test_rows_of_several_formats_in_one_file_are_each_read_as_what_they_are() -> None:
    made = run({"kind": "chat"}, [CHAT, {"instruction": "i", "output": "o"}, {"question": "q2", "answer": "a2"}])
    assert made.messages == [
        [("user", "q"), ("assistant", "a")],
        [("user", "i"), ("assistant", "o")],
        [("user", "q2"), ("assistant", "a2")],
    ]
    assert made.outcome.counts == {"alpaca": 1, "openai-chat": 1, "question-answer": 1}
    assert made.examples[0].messages[1].weight == 0.0
    assert made.examples[0].id == "ex_r.1" and made.examples[0].documents == ["r.1"]


def test_bad_rows_are_dropped_with_file_and_line_and_the_others_kept() -> None:
    broken = {"messages": [{"role": "user", "content": "q"}]}
    both = {**CHAT, "chosen": "a", "rejected": "b"}
    made = run({"kind": "chat"}, [CHAT, broken, {"x": 1}, both, {"text": "t"}, [1]], [("notes.md", "words")])
    assert len(made.examples) == 1
    assert made.reasons == [
        "unreadable: data.jsonl:2: the last message is the user's, nothing to learn from",
        "unreadable: data.jsonl:3: of no known format; its fields: x",
        "unreadable: data.jsonl:4: it may be openai-chat or preference",
        "unreadable: data.jsonl:5: it is text, which holds text",
        "unreadable: data.jsonl:6: a JSON object is wanted, not list",
        "unreadable: notes.md: it is text, which holds text",
    ]


def test_a_named_format_reads_columns_by_other_names() -> None:
    spec = {"kind": "chat", "format": "alpaca", "columns": {"instruction": "frage", "output": "antwort"}}
    assert run(spec, [{"frage": "q", "antwort": "a"}]).messages == [[("user", "q"), ("assistant", "a")]]
    with pytest.raises(InvalidInput, match="columns of which format"):
        run({"kind": "chat", "columns": {"messages": "turns"}})


def test_the_text_to_compare_is_everything_that_was_said_and_the_row_ends_here() -> None:
    made = run({"kind": "chat"}, [CHAT])
    assert made.batch.column("text").to_pylist() == ["q\n\na"] and made.batch.column("row").to_pylist() == [""]


# Columns and templates


def test_questions_and_answers_come_from_columns_paths_and_templates() -> None:
    row = {"id": 7, "task": "Sum up.", "instances": [{"input": "long", "output": "short"}]}
    spec = {
        "kind": "completion",
        "prompt": "{{ task }}\n{{ instances[0].input }}",
        "completion": "instances.0.output",
        "tags": ["id"],
        "group": "task",
    }
    made = run(spec, [row, {**row, "instances": []}, {"task": 1}])
    assert made.messages == [[("user", "Sum up.\nlong"), ("assistant", "short")]]
    tags = made.examples[0].tags
    assert tags["id"] == "7" and tags["group"].startswith("key-") and "Sum" not in tags["group"]
    assert "no column 'instances'" in made.reasons[1] and "data.jsonl:2" in made.reasons[0]


def test_a_template_s_own_words_are_not_compared() -> None:
    spec = {"kind": "completion", "prompt": "A long sentence that stands in each prompt: {{ q }}", "completion": "a"}
    assert run(spec, [{"q": "short", "a": "b"}]).batch.column("text").to_pylist() == ["short\n\nb"]


def test_a_system_message_comes_from_a_column_where_there_is_one_or_a_template() -> None:
    rows = [{"prompt": "q", "completion": "a", "system": "s"}, {"prompt": "q", "completion": "a"}]
    assert [len(turns) for turns in run({"kind": "completion"}, rows).messages] == [3, 2]
    fixed = run({"kind": "completion", "system": "{{ 'Be brief.' }}"}, rows[1:])
    assert fixed.messages[0][0] == ("system", "Be brief.")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ q", "unexpected end"),
        ("{% include 'x' %}", "include of another template"),
    ],
)
def test_a_template_that_is_none_is_refused_with_its_line(template: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason) as refusal:
        run({"kind": "completion", "prompt": template})
    assert refusal.value.where == "task.prompt:1"


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ q.__init__.__globals__ }}",
        "{{ q.append(1) }}",
        "{{ 1 / 0 }}",
        "{{ lipsum() }}",
    ],
)
def test_a_template_reaches_nothing_but_the_row(template: str) -> None:
    made = run({"kind": "completion", "prompt": template, "completion": "a"}, [{"q": [], "a": "a"}])
    assert len(made.reasons) == 1 and not made.examples


def test_json_in_a_template_is_not_escaped_for_html() -> None:
    spec = {"kind": "completion", "prompt": "{{ q | tojson }}", "completion": "a"}
    assert run(spec, [{"q": {"b": "<ü>", "a": 1}, "a": "x"}]).messages[0][0] == ("user", '{"a": 1, "b": "<ü>"}')


def test_a_question_stands_after_its_context() -> None:
    rows = [{"context": "c", "question": "q", "answer": {"text": ["a", "b"]}}, {"question": "q", "answer": "a"}]
    made = run({"kind": "question_answering"}, [*rows, {"question": "q", "answer": []}])
    assert made.messages == [[("user", "c\n\nq"), ("assistant", "a")], [("user", "q"), ("assistant", "a")]]
    assert made.reasons == ["unreadable: data.jsonl:3: `answer` holds no answer"]
    asked = run(
        {"kind": "question_answering", "template": "{{ question }} ({{ source }})"}, [{**rows[1], "source": "s"}]
    )
    assert asked.messages[0][0] == ("user", "q (s)")


# Raw text


def test_documents_are_raw_text_as_they_are_and_rows_by_their_column() -> None:
    made = run({"kind": "text"}, documents=[("a.md", "words")])
    assert made.examples[0].text == "words" and not made.examples[0].messages
    rows = run({"kind": "text", "text": "body"}, [{"body": "words", "x": 1}, {"body": ""}])
    assert [example.text for example in rows.examples] == ["words"] and len(rows.reasons) == 1


# Classification


def test_the_label_is_the_answer_and_a_tag_and_the_label_set_stands_in_the_question(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('["refund", "delivery"]')
    spec = {"kind": "classification", "text": "body", "label": "class", "labels": "labels.json"}
    rows = [
        {"body": "Where is it?", "class": "delivery"},
        {"body": "Money!", "class": 0},
        {"body": "x", "class": "rfund"},
    ]
    made = run(spec, rows, folder=tmp_path)
    assert [example.tags["label"] for example in made.examples] == ["delivery", "refund"]
    question = "Which label fits this text? Answer with one of: refund, delivery.\n\nWhere is it?"
    assert made.messages[0] == [("user", question), ("assistant", "delivery")]
    assert made.batch.column("text").to_pylist() == ["Where is it?", "Money!"]
    assert made.reasons == ["unreadable: data.jsonl:3: labels.json has no label 'rfund'"]
    assert task_files(TASK.validate_python(spec)) == ("labels.json",)


def test_what_cleaning_does_to_the_text_shows_in_the_question() -> None:
    task = prepare_task(TASK.validate_python({"kind": "classification"}), Path())
    document = Document("r.1", "", Span("0", "a.csv"), {"line": "1"})
    rows = pa.array(['{"text": "A  b", "label": "x"}'], pa.large_string())
    batch = set_column(to_batch([document]), "row", rows)
    batch = apply_outcome(batch, task.parse(batch))
    cleaned = set_column(batch, "text", pa.array(["A b"], pa.large_string()))
    (example,) = to_examples(task.make_examples(cleaned))
    assert example.messages == [Message("user", "A b"), Message("assistant", "x")]


def test_a_document_s_folder_can_be_its_label() -> None:
    spec = {"kind": "classification", "label": "{{ uri.split('/')[0] }}"}
    made = run(spec, documents=[("spam/1.txt", "buy"), ("ham/2.txt", "hello")])
    assert [example.tags["label"] for example in made.examples] == ["spam", "ham"]


@pytest.mark.parametrize("content", ["[]", "{}", '["a", "a"]', "[1]", "{broken", '"a"'])
def test_a_file_that_holds_no_labels_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(InvalidInput) as refusal:
        run({"kind": "classification", "labels": "labels.json"}, folder=tmp_path)
    assert refusal.value.where == "labels.json"
    with pytest.raises(NotFound):
        run({"kind": "classification", "labels": "nowhere.json"}, folder=tmp_path)


# Preference


def test_a_pair_is_a_prompt_and_two_answers() -> None:
    rows = [{"prompt": "q", "chosen": "a", "rejected": "b"}, {"prompt": "q", "completion": "a", "label": True}]
    made = run({"kind": "preference"}, [*rows, CHAT])
    first, second = made.examples
    assert (first.messages, first.chosen, first.rejected) == (
        [Message("user", "q")],
        [Message("assistant", "a")],
        [Message("assistant", "b")],
    )
    assert second.tags["desirable"] == "true" and second.messages[-1].content == "a"
    assert made.reasons == ["unreadable: data.jsonl:3: it is openai-chat, which holds conversations"]


def test_a_pair_may_be_made_by_templates() -> None:
    columns = {"prompt": "Answer: {{ q }}", "chosen": "best", "rejected": "worst"}
    spec = {"kind": "preference", "format": "preference", "columns": columns}
    made = run(spec, [{"q": "?", "best": "a", "worst": "b"}, {"q": "?", "best": "a", "worst": "a"}])
    assert made.examples[0].messages[0].content == "Answer: ?" and made.examples[0].chosen[0].content == "a"
    assert made.batch.column("text").to_pylist() == ["?\n\na\n\nb"]
    assert "are the same" in made.reasons[0]


# Code


def test_each_documented_function_of_a_file_is_an_example_with_its_stretch_of_the_file() -> None:
    made = run({"kind": "code", "style": "docstring"}, documents=[("pkg/a.py", SOURCE)])
    head = '@property\ndef f(self):\n    """Doc of é."""'
    assert made.messages[0] == [
        ("user", f"Write this Python function.\n\n{head}"),
        ("assistant", f"{head}\n    y = 1\n    return y"),
    ]
    assert [example.tags["function"] for example in made.examples] == ["f", "h"]
    assert [example.id for example in made.examples] == ["ex_d.1.1", "ex_d.1.2"]
    assert made.outcome.parents is not None and made.outcome.parents.to_pylist() == [0, 0]
    (span,) = made.batch.column("spans").to_pylist()[1]
    assert SOURCE[span["start"] : span["end"]].startswith("def h()") and span["end"] == len(SOURCE)


def test_a_hole_is_filled_by_what_stood_there() -> None:
    spec = {"kind": "code", "style": "fill", "template": "{{ prefix }}<FILL>{{ suffix }}"}
    made = run(spec, documents=[("a.py", SOURCE)])
    for (_, asked), (_, answer) in made.messages:
        assert asked.replace("<FILL>", answer + "\n") == SOURCE
    near = run({**spec, "context_lines": 1}, documents=[("a.py", SOURCE)])
    assert near.messages[1][0] == ("user", '    """H."""\n<FILL>')


def test_files_that_are_no_python_are_dropped_with_a_reason() -> None:
    files = [("a.py", "def f(:"), ("b.c", "int x;"), ("c.py", "x = 1\n"), ("d.py", "\0")]
    made = run({"kind": "code", "style": "docstring"}, documents=files)
    assert made.reasons[0].startswith("unreadable: a.py: not Python: invalid syntax")
    assert made.reasons[1:3] == ["unreadable: b.c: only Python is parsed", "nothing in it: c.py"]
    assert made.reasons[3].startswith("unreadable: d.py: not Python") and not made.examples


def test_code_may_stand_in_columns() -> None:
    made = run({"kind": "code"}, [{"instruction": "Write f.", "output": "def f():\n    pass"}])
    assert made.messages == [[("user", "Write f."), ("assistant", "def f():\n    pass")]]


# Dialogue


def test_a_transcript_becomes_turns_by_who_speaks() -> None:
    spec = {"kind": "dialogue", "speakers": {"agent": "assistant", "CUSTOMER": "user"}}
    (turns,) = run(spec, documents=[("call.txt", CALL)]).messages
    assert turns == [
        ("assistant", "Hello.\nHow can I help?"),
        ("user", "My pump is broken: it leaks.\nBadly."),
        ("assistant", "Oh."),
    ]


def test_without_roles_the_first_to_speak_is_the_user_and_a_third_is_refused() -> None:
    made = run({"kind": "dialogue"}, [{"text": "Anna: hi\nBob: ho"}, {"text": "A: 1\nB: 2\nC: 3"}])
    assert made.messages == [[("user", "hi"), ("assistant", "ho")]]
    assert made.reasons == ["unreadable: data.jsonl:2: 3 speakers, and no roles"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no speaker at all", "nobody speaks"),
        ("Preamble.\nAnna: hi\nBob: ho", "words before the first speaker, Anna"),
        ("Anna: hi", "no question that the assistant answers"),
        ("Anna: \nBob: \n", "no question that the assistant answers"),
    ],
)
def test_a_text_that_is_no_dialogue_is_dropped_with_a_reason(text: str, reason: str) -> None:
    assert reason in run({"kind": "dialogue"}, [{"text": text}]).reasons[0]


def test_a_pattern_of_one_s_own_says_how_turns_begin() -> None:
    spec = {"kind": "dialogue", "pattern": r"^\[(\w+)\] ", "speakers": {"q": "user", "a": "assistant"}}
    assert run(spec, [{"text": "[Q] why?\n[A] so."}]).messages == [[("user", "why?"), ("assistant", "so.")]]
    with pytest.raises(InvalidInput, match="no group that is the speaker"):
        run({"kind": "dialogue", "pattern": "^x:"})
    with pytest.raises(InvalidInput, match="not a regular expression"):
        run({"kind": "dialogue", "pattern": "("})


# Every kind


@pytest.mark.parametrize("kind", list_specs())
def test_every_kind_is_declared_under_its_name(kind: str) -> None:
    declared = find_kind(kind)
    assert declared.name == kind and declared.spec.model_fields["kind"].default == kind
    assert all(name in declared.spec.model_fields for name in declared.files)
    assert all(field.description for name, field in declared.spec.model_fields.items() if name != "kind")


@pytest.mark.parametrize(("kind", "holds"), [("chat", "conversations"), ("preference", "pairs")])
def test_a_task_takes_every_format_that_holds_what_it_reads(kind: str, holds: str) -> None:
    named = get_args(list_specs()[kind].model_fields["format"].annotation)
    assert set(named) == {"auto", *(name for name, shape in FORMATS.items() if shape.holds == holds)}


@pytest.mark.parametrize("kind", [kind for kind in list_specs() if kind != "extraction"])
def test_an_empty_batch_is_no_examples(kind: str) -> None:
    assert run({"kind": kind}).examples == []


def test_examples_of_a_task_are_written_and_read_as_any_others(tmp_path: Path) -> None:
    made = run({"kind": "chat"}, [CHAT])
    write_examples(tmp_path / "data" / "train-00000.parquet", made.examples)
    assert list(read_examples(tmp_path)) == made.examples
    assert task_id(TASK.validate_python({"kind": "chat"})) == "chat@1"
