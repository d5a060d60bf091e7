"""Tags are set by whole columns; a dictionary for each row says what that must give."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.core.types import Document, Span
from espalier.data.flow.batch import set_tags, tag_column, to_batch

_NAMES = st.sampled_from(["a", "chunk", "format", "ü", ""])
_VALUES = st.text(max_size=3)
_ROWS = st.lists(st.tuples(st.dictionaries(_NAMES, _VALUES), st.none() | _VALUES, st.none() | _VALUES), max_size=6)


@given(_ROWS, _NAMES, _NAMES, st.integers(0, 3))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_setting_tags_is_setting_them_row_by_row(
    rows: list[tuple[dict[str, str], str | None, str | None]], one: str, two: str, skip: int
) -> None:
    documents = [Document(f"d{n}", "x", Span("0" * 64, "u"), tags) for n, (tags, _, _) in enumerate(rows)]
    rows, batch = rows[skip:], to_batch(documents).slice(skip)
    columns = {one: [first for _, first, _ in rows], two: [second for _, _, second in rows]}
    expected = [dict(tags) for tags, _, _ in rows]
    for name, column in columns.items():
        for row, value in zip(expected, column, strict=True):
            row |= {name: value} if value is not None else {}
    made = set_tags(batch, {name: pa.array(column, pa.string()) for name, column in columns.items()})
    assert made.schema == batch.schema
    assert made.column("tags").to_pylist() == [sorted(row.items()) for row in expected]
    made.validate(full=True)
    for name in ("a", "chunk", "none"):
        assert tag_column(made, name).to_pylist() == [row.get(name) for row in expected]
