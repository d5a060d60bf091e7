"""Documents and the records their keys name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.recipefile import load_recipe
from espalier.core.types import Document, Span
from espalier.data.flow.batch import tag_column, to_batch
from espalier.data.flow.outcome import apply_outcome, rewrite_conversations
from espalier.data.spec import DataSpec
from espalier.data.tasks.extraction import ExtractionTask, compile_key, read_labels
from espalier.data.tasks.task import Rewrite, prepare_task, task_files

TASK = ExtractionTask(labels="records.jsonl", key=r"T-\d+")


def write_labels(folder: Path, *rows: object) -> Path:
    path = folder / "records.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def make_batch(*texts: str, **tags: str) -> pa.RecordBatch:
    return to_batch(
        Document(f"doc.{n}", text, Span("0", f"file-{n}.txt"), {"format": "txt", **tags})
        for n, text in enumerate(texts, 1)
    )


def messages(batch: pa.RecordBatch) -> list[list[tuple[str, str]]]:
    return [[(turn["role"], turn["content"]) for turn in turns] for turns in batch.column("messages").to_pylist()]


def hide_mail(texts: pa.LargeStringArray) -> pa.LargeStringArray:
    return pa.array([text.replace("a@b.example", "[EMAIL]") for text in texts.to_pylist()], pa.large_string())


def test_a_document_is_answered_with_the_record_its_key_names(tmp_path: Path) -> None:
    write_labels(tmp_path, {"ref": "T-1", "record": " <a/>\n"}, {"ref": "T-2", "record": "x"})
    task = prepare_task(TASK, tmp_path)
    batch = make_batch("see T-1", "nothing here", "T-9")
    outcome = task.parse(batch)
    assert outcome.reasons is not None and outcome.reasons.to_pylist() == [
        None,
        r"no key: T-\d+ found nothing in its text",
        "no label: records.jsonl has none for T-9",
    ]
    kept = apply_outcome(batch, outcome)
    assert tag_column(kept, "group").to_pylist() == ["T-1"]
    examples = task.make_examples(kept)
    assert messages(examples) == [[("user", "see T-1"), ("assistant", "<a/>")]]
    assert examples.column("id").to_pylist() == ["ex_doc.1"] and task.label_count == 2 and not task.needs_rows
    assert task_files(TASK) == ("records.jsonl",)


def test_cleaning_rewrites_the_answer_as_it_rewrites_the_text(tmp_path: Path) -> None:
    write_labels(tmp_path, {"ref": "T-1", "record": "<r>a@b.example</r>"})
    task = prepare_task(TASK, tmp_path)
    batch = apply_outcome(make_batch("T-1"), task.parse(make_batch("T-1")))
    (column,) = rewrite_conversations(batch, hide_mail).values()
    batch = batch.set_column(batch.schema.get_field_index("messages"), batch.schema.field("messages"), column)
    assert messages(task.make_examples(batch)) == [[("user", "T-1"), ("assistant", "<r>[EMAIL]</r>")]]


@pytest.mark.parametrize(("rewrite", "shown"), [(None, "a@b.example"), (hide_mail, "key-")])
def test_a_key_that_cleaning_would_redact_is_shown_nowhere(tmp_path: Path, rewrite: Rewrite | None, shown: str) -> None:
    write_labels(tmp_path, {"ref": "a@b.example", "record": "r"})
    task = prepare_task(ExtractionTask(labels="records.jsonl", key=r"\w@b\.example"), tmp_path, rewrite=rewrite)
    outcome = task.parse(make_batch("from a@b.example", "from c@b.example"))
    groups = outcome.tags["group"].to_pylist()
    assert str(groups[0]).startswith(shown) and groups[1] == "c@b.example"
    assert outcome.reasons is not None and outcome.reasons[1].as_py().endswith("has none for c@b.example")


def test_the_key_may_stand_in_a_group_the_path_or_a_column(tmp_path: Path) -> None:
    write_labels(tmp_path, *({"ref": ref, "record": "r"} for ref in ("7", "T-44", "1")))

    def group(expression: str, place: str) -> Any:
        task = prepare_task(ExtractionTask(labels="records.jsonl", key=expression, key_from=place), tmp_path)
        return task.parse(make_batch("number: 7 of T-1", ticket="T-44")).tags["group"].to_pylist()

    assert group(r"number: (\d+)", "text") == ["7"]
    assert group(r"T-\d+", "tag:ticket") == ["T-44"]
    assert group(r"file-(\d)", "uri") == ["1"]


def test_a_template_puts_words_around_the_text(tmp_path: Path) -> None:
    write_labels(tmp_path, {"ref": "T-1", "record": "r"})
    spec = ExtractionTask(labels="records.jsonl", key=r"T-\d+", template="A {{ format }} file:\n{{ text }}")
    task = prepare_task(spec, tmp_path)
    batch = make_batch("T-1")
    made = task.make_examples(apply_outcome(batch, task.parse(batch)))
    assert messages(made)[0][0] == ("user", "A txt file:\nT-1")


def test_a_key_that_is_no_regular_expression_is_refused() -> None:
    with pytest.raises(InvalidInput, match="not a regular expression") as refusal:
        compile_key("T-(")
    assert refusal.value.where == "task.key"


def test_a_recipe_with_such_a_key_is_refused_at_its_line(tmp_path: Path) -> None:
    path = tmp_path / "dataset.yaml"
    path.write_text("name: x\ntask:\n  kind: extraction\n  labels: r.jsonl\n  key: T-(\n")
    with pytest.raises(InvalidInput, match=r"dataset\.yaml:5:3: .*not a regular expression: missing \)"):
        load_recipe(path, DataSpec)


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
    assert labels == {"1": '{"b": "ü", "a": 1}'}
