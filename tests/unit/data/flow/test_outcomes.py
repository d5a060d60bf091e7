"""Outcomes: what a step changed, applied to a batch and kept on disk."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from espalier.core.types import Document, Span
from espalier.data.flow.batch import MESSAGE, SCHEMA, set_column, tag_column, to_batch, to_documents
from espalier.data.flow.outcome import Outcome, apply_outcome, rewrite_conversations
from espalier.data.flow.record import describe_dropped, load_outcome, read_note, save_outcome

NOTE = {"step": "x@1", "rows_in": 3, "rows_out": 2, "drops": {}, "dropped": 0}


def make_batch(*texts: str) -> pa.RecordBatch:
    return to_batch(Document(f"d.{n}", text, Span("b", "a.txt"), {"n": str(n)}) for n, text in enumerate(texts, 1))


def test_documents_survive_the_way_through_a_batch() -> None:
    documents = [
        Document(
            "d.1", "eins", Span("b", "a.pdf", 1, 0, 4), {"format": "pdf"}, continued=(Span("b", "a.pdf", 2, 0, 9),)
        ),
        Document("d.2", "", Span("b", "a.pdf", 3)),
    ]
    assert list(to_documents(to_batch(documents))) == documents


def test_an_outcome_that_says_nothing_changes_nothing() -> None:
    batch = make_batch("one", "two")
    assert apply_outcome(batch, Outcome()).equals(batch)


def test_texts_tags_and_drops_are_applied_together() -> None:
    outcome = Outcome(
        texts=pa.array(["1", "2", "3"], pa.large_string()),
        tags={"seen": pa.array(["yes", None, "yes"])},
        reasons=pa.array([None, "too short: 1", None]),
    )
    after = apply_outcome(make_batch("one", "two", "three"), outcome)
    assert after.column("text").to_pylist() == ["1", "3"]
    assert tag_column(after, "seen").to_pylist() == ["yes", "yes"]
    assert tag_column(after, "n").to_pylist() == ["1", "3"]


def test_a_tag_that_is_null_leaves_the_row_s_own() -> None:
    after = apply_outcome(make_batch("one", "two"), Outcome(tags={"n": pa.array([None, "9"], pa.string())}))
    assert tag_column(after, "n").to_pylist() == ["1", "9"]


def test_messages_are_rewritten_in_place_and_keep_roles_and_weights() -> None:
    turns = [
        [{"role": "user", "content": "A", "weight": None}, {"role": "assistant", "content": "B", "weight": 0.5}],
        [],
    ]
    batch = set_column(make_batch("x", "y"), "messages", pa.array(turns, pa.list_(MESSAGE)))

    def lower(texts: pa.LargeStringArray) -> pa.LargeStringArray:
        return pa.array([text.lower() for text in texts.to_pylist()], pa.large_string())

    changed = rewrite_conversations(batch.slice(0, 2), lower)
    assert set(changed) == {"messages"}
    assert changed["messages"].to_pylist() == [
        [{"role": "user", "content": "a", "weight": None}, {"role": "assistant", "content": "b", "weight": 0.5}],
        [],
    ]


def test_messages_of_a_slice_are_those_of_its_rows() -> None:
    turns = [[{"role": "user", "content": name, "weight": None}] for name in "ABC"]
    batch = set_column(make_batch("x", "y", "z"), "messages", pa.array(turns, pa.list_(MESSAGE)))
    changed = rewrite_conversations(
        batch.slice(1, 2), lambda texts: pa.array([text * 2 for text in texts.to_pylist()], pa.large_string())
    )
    assert [row[0]["content"] for row in changed["messages"].to_pylist()] == ["BB", "CC"]


def test_an_outcome_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "ab" / "cd.arrow"
    outcome = Outcome(
        texts=pa.array(["1", "2", "3"], pa.large_string()),
        reasons=pa.array([None, None, "empty"]),
        tags={"t": pa.array(["a", None, None])},
        counts={"changed": 3},
    )
    batch = make_batch("one", "two", "three")
    save_outcome(path, outcome, None, NOTE)
    again = load_outcome(path)
    assert apply_outcome(batch, again).equals(apply_outcome(batch, outcome))
    assert again.counts == {"changed": 3}
    assert read_note(path) == {**NOTE, "made_rows": False, "counts": {"changed": 3}, "problems": []}


def test_rows_made_anew_come_back_with_their_parents(tmp_path: Path) -> None:
    path = tmp_path / "x.arrow"
    made = make_batch("on", "e", "two")
    save_outcome(path, Outcome(batch=made, parents=pa.array([0, 0, 1], pa.int32())), None, NOTE)
    again = load_outcome(path)
    assert apply_outcome(make_batch("one", "two"), again).equals(made)
    assert again.parents.to_pylist() == [0, 0, 1]


def test_a_checkpoint_that_is_not_whole_counts_as_absent(tmp_path: Path) -> None:
    path = tmp_path / "x.arrow"
    made = make_batch("a")
    save_outcome(path, Outcome(batch=made, parents=pa.array([0], pa.int32())), None, NOTE)
    path.with_suffix(".rows").write_bytes(b"ARROW1 torn")
    assert read_note(path) is None
    save_outcome(path, Outcome(), None, NOTE)
    path.write_bytes(path.read_bytes()[:-9])
    assert read_note(path) is None
    assert read_note(tmp_path / "never.arrow") is None


def test_dropped_rows_are_told_with_place_reason_and_text() -> None:
    batch = make_batch("one", "two")
    gone = describe_dropped(batch, pa.array([None, "too short: 3 characters"]), "length@2")
    assert gone is not None
    assert gone.to_pylist() == [
        {
            "id": "d.2",
            "uri": "a.txt",
            "blob": "b",
            "page": 1,
            "start": 0,
            "end": 0,
            "step": "length@2",
            "reason": "too short: 3 characters",
            "text": "two",
        }
    ]
    assert describe_dropped(batch, pa.array([None, None], pa.string()), "length@2") is None


def test_every_column_of_a_batch_is_never_null() -> None:
    assert not any(field.nullable for field in SCHEMA)
