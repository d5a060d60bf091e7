from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.types import Example, Message
from espalier.store.examples import count_examples, read_examples, write_examples

texts = st.text(st.characters(codec="utf-8"), max_size=30)
messages = st.lists(
    st.builds(Message, st.sampled_from(["system", "user", "assistant", "tool"]), texts, st.none() | st.floats(0, 2)),
    max_size=4,
)
examples = st.builds(
    Example,
    id=texts,
    messages=messages,
    text=texts,
    chosen=messages,
    rejected=messages,
    split=st.sampled_from(["train", "validation", "test"]),
    documents=st.lists(texts, max_size=3),
    tags=st.dictionaries(texts, texts, max_size=3),
)


@given(rows=st.lists(examples, max_size=5))
def test_what_is_written_is_read_back(rows: list[Example], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("examples") / "rows.parquet"
    assert write_examples(path, rows) == len(rows)
    assert list(read_examples(path)) == rows
    for split in ("train", "validation", "test"):
        assert list(read_examples(path, split)) == [row for row in rows if row.split == split]
        assert count_examples(path, split) == sum(row.split == split for row in rows)


def test_the_same_examples_give_the_same_bytes(tmp_path: Path) -> None:
    for name, tags in (("a", {"x": "1", "y": "2"}), ("b", {"y": "2", "x": "1"})):
        write_examples(tmp_path / name, (Example(id=str(i), text="word", tags=tags) for i in range(5000)))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_rows_pass_through_in_groups_and_are_not_all_held_at_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write_examples(path, (Example(id=str(i)) for i in range(9000)))
    groups = pq.ParquetFile(path).metadata
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [4096, 4096, 808]
    assert [row.id for row in read_examples(path)] == [str(i) for i in range(9000)]


def test_a_folder_is_read_train_first_and_by_split(tmp_path: Path) -> None:
    for split in ("test", "train", "validation"):
        write_examples(tmp_path / "data" / f"{split}-00000.parquet", [Example(id=split, split=split)])
    assert [row.id for row in read_examples(tmp_path)] == ["train", "validation", "test"]
    assert [row.id for row in read_examples(tmp_path, "validation")] == ["validation"]
    assert count_examples(tmp_path) == 3


def test_a_split_that_a_dataset_has_none_of_is_empty(tmp_path: Path) -> None:
    write_examples(tmp_path / "data" / "train-00000.parquet", [Example(id="1")])
    assert list(read_examples(tmp_path, "test")) == []


def test_a_writer_that_fails_half_way_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write_examples(path, [Example(id="old")])

    def break_off() -> Iterator[Example]:
        for i in range(5000):
            yield Example(id=str(i))
        raise ConnectionError

    with pytest.raises(ConnectionError):
        write_examples(path, break_off())
    assert [row.id for row in read_examples(path)] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_not_a_dataset_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no dataset at"):
        list(read_examples(tmp_path / "absent"))
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(InvalidInput, match=r"text\.parquet is no Parquet file"):
        list(read_examples(tmp_path / "text.parquet"))
    pq.write_table(pa.table({"id": ["1"]}), tmp_path / "other.parquet")
    with pytest.raises(InvalidInput, match="column 'messages' is missing"):
        list(read_examples(tmp_path / "other.parquet"))
    with pytest.raises(InvalidInput, match="no split 'dev'") as refused:
        list(read_examples(tmp_path, "dev"))
    assert "train, validation, test" in refused.value.hint
