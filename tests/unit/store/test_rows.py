"""Rows by number are the rows in order."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.types import Example, Message
from espalier.store.examples import read_examples, write_examples
from espalier.store.rows import open_rows

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
TURNS = st.lists(
    st.builds(Message, st.sampled_from(["system", "user", "assistant", "tool"]), TEXT, st.none() | st.floats(0, 1)),
    max_size=3,
)
EXAMPLES = st.builds(
    Example,
    TEXT,
    TURNS,
    TEXT,
    TURNS,
    TURNS,
    st.just("train"),
    st.lists(TEXT, max_size=2),
    st.dictionaries(TEXT, TEXT, max_size=2),
)


@given(examples=st.lists(EXAMPLES, max_size=12), files=st.integers(1, 3), data=st.data())
def test_rows_by_number_are_the_rows_in_order(
    tmp_path_factory: Any, examples: list[Example], files: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("version")
    for number in range(files):
        write_examples(folder / "data" / f"train-{number:05}.parquet", examples[number::files])
    expected = list(read_examples(folder, "train"))
    with open_rows(folder, "train", folder / "cache") as rows:
        assert len(rows) == len(expected) and list(rows) == expected
        places = data.draw(st.lists(st.integers(-len(expected), len(expected) - 1), max_size=6)) if expected else []
        assert rows.take(places) == [expected[place] for place in places]
        assert rows[1:-1] == expected[1:-1] and rows[::-2] == expected[::-2]


def make(folder: Path, count: int) -> None:
    write_examples(folder / "data" / "train-00000.parquet", (Example(f"ex_{n}", text=f"t{n}") for n in range(count)))


def test_rows_across_batches_are_found(tmp_path: Path) -> None:
    make(tmp_path, 5_000)
    with open_rows(tmp_path, "train", tmp_path / "cache") as rows:
        places = [0, 4_999, 1_023, 1_024, 4_096, 4_095, -1, 1_024]
        assert [row.text for row in rows.take(places)] == [f"t{place % 5_000}" for place in places]
        for wrong in (5_000, -5_001):
            with pytest.raises(IndexError):
                rows[wrong]


def test_the_copy_is_made_once_and_again_for_other_bytes(tmp_path: Path) -> None:
    make(tmp_path, 10)
    open_rows(tmp_path, "train", tmp_path / "cache").close()
    (copy,) = (tmp_path / "cache" / "rows").iterdir()
    before = copy.stat().st_ino
    open_rows(tmp_path, "train", tmp_path / "cache").close()
    assert copy.stat().st_ino == before
    make(tmp_path, 11)
    os.utime(tmp_path / "data" / "train-00000.parquet", ns=(1, 1))
    with open_rows(tmp_path, "train", tmp_path / "cache") as rows:
        assert len(rows) == 11


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        open_rows(tmp_path, "train", tmp_path / "cache")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-00000.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(InvalidInput, match="holds no examples"):
        open_rows(tmp_path, "train", tmp_path / "cache")
    assert not list((tmp_path / "cache" / "rows").glob("*.arrow"))
