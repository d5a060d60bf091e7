"""Row groups follow from the rows alone, and none is too much to hold."""

from __future__ import annotations

import itertools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.core.types import Example, Message
from espalier.store import rowgroups
from espalier.store.examples import SCHEMA, _to_row
from espalier.store.rowgroups import measure_rows, open_writer


def make_batch(sizes: list[int]) -> pa.RecordBatch:
    rows = [
        Example(
            id=f"ex_{number}",
            messages=[Message("user", "u" * (size // 2))] * (number % 3),
            text="t" * size,
            chosen=[],
            rejected=[],
            split="train",
            documents=[f"{number}"],
            tags={"format": "txt", "n": str(number)},
        )
        for number, size in enumerate(sizes)
    ]
    return pa.RecordBatch.from_pylist([_to_row(row) for row in rows], SCHEMA)


def write(path: Path, batch: pa.RecordBatch, cuts: list[int]) -> bytes:
    bounds = [0, *sorted(min(cut, len(batch)) for cut in cuts), len(batch)]
    with open_writer(path, batch.schema) as add:
        for start, end in itertools.pairwise(bounds):
            add(batch.slice(start, end - start))
    return path.read_bytes()


def list_groups(path: Path) -> list[int]:
    with pq.ParquetFile(path) as file:
        return [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 400), max_size=40), st.lists(st.integers(0, 40), max_size=6))
def test_how_rows_are_given_in_batches_does_not_show(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], cuts: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("groups")
    batch = make_batch(sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rowgroups, "ROWS_IN_GROUP", 7)
        patch.setattr(rowgroups, "BYTES_IN_GROUP", 1500)
        at_once, in_parts = write(folder / "a", batch, []), write(folder / "b", batch, cuts)
        assert at_once == in_parts
    groups = list_groups(folder / "a")
    assert sum(groups) == len(batch) and all(0 < rows <= 7 for rows in groups)
    assert pq.read_table(folder / "a").to_pylist() == batch.to_pylist()
    start = 0
    for rows in groups:
        sizes_of = measure_rows(batch.slice(start, rows))
        assert sizes_of[:-1].sum() < 1500  # but for its last row no group is beyond the bound
        start += rows


def test_books_are_not_gathered_by_the_thousand(tmp_path: Path) -> None:
    book = make_batch([20 << 20])
    with open_writer(tmp_path / "a", book.schema) as add:
        for _ in range(10):
            add(book)
    assert list_groups(tmp_path / "a") == [4, 4, 2]


def test_a_row_is_measured_by_its_values_wherever_it_stands() -> None:
    batch = make_batch([5, 300, 0, 77])
    whole = measure_rows(batch).tolist()
    assert [int(measure_rows(batch.slice(row, 1))[0]) for row in range(4)] == whole
    assert whole[1] > 300 + 150 and whole[2] < 300
    assert measure_rows(batch.filter(pa.array([False, True, False, True]))).tolist() == [whole[1], whole[3]]
