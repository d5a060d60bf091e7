"""Names in large columns: the index loses none, in any case, script or punctuation."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.data.kernels.buffers import view_texts
from espalier.data.pii.finding import Finding, byte_offsets
from espalier.data.pii.names import Names

LIST = [
    "Ann O'Neill-Bell",
    "Noor Abbas",
    "Jörg Strauß",
    "Zoë Ångström",
    "佐々木 健",
    "Мария Иванова",
    "Σίσυφος",
    "May Long",
]
WORDS = [
    "Ann",
    "ann",
    "ANN",
    "O'Neill-Bell",
    "o'neill-bell",
    "Bell",
    "O'Neill",
    "Noor",
    "Abbas",
    "noor,",
    "Jörg",
    "JÖRG",
    "Strauß",
    "STRAUSS",
    "strauss",
    "Strau",
    "Zoë",
    "ZOË",
    "Ångström",
    "ångström",
    "Ångström",
    "佐々木",
    "健",
    "佐",
    "Мария",
    "МАРИЯ",
    "Иванова",
    "Σίσυφος",
    "ΣΊΣΥΦΟΣ",
    "May",
    "may",
    "Long",
    "long",
    "aﬁ",
    "ſtrauſſ",
    "‘Ann’",
    "“Jörg",
    "Ann—Noor",
    "Ann×Noor",
    "²Ann",
    "3Ann",
    "Ann_",
    "Ann's",
    "J̈org",
]
GLUE = [" ", "  ", "\n", ", ", ",\u00a0", " J. ", "\t", "", "-", "'", "、", "—", ".", " x " * 60]


def find_both(names: Names, texts: list[str]) -> tuple[dict[int, list[Finding]], dict[int, list[Finding]]]:
    """Findings through the index, and of whole texts; in bytes."""
    column = pa.array(texts, pa.large_string())
    data, edges = view_texts(column)
    found: dict[int, list[Finding]] = {}
    for row, start, end in names._find_windows(data, edges).tolist():
        text = bytes(data[start:end]).decode()
        to_byte, shift = byte_offsets(text), start - int(edges[row])
        for each in names.find(text):
            found.setdefault(row, []).append(Finding(shift + to_byte(each.start), shift + to_byte(each.end), *each[2:]))
    whole: dict[int, list[Finding]] = {}
    for row, text in enumerate(texts):
        to_byte = byte_offsets(text)
        for each in names.find(text):
            whole.setdefault(row, []).append(Finding(to_byte(each.start), to_byte(each.end), *each[2:]))
    return found, whole


texts = st.lists(st.tuples(st.sampled_from(WORDS) | st.text(max_size=4), st.sampled_from(GLUE)), max_size=12).map(
    lambda pairs: "".join(word + glue for word, glue in pairs)
)


@pytest.mark.parametrize("parts", [True, False])
@given(given_texts=st.lists(texts, max_size=3))
@settings(max_examples=250, deadline=None, derandomize=True)
def test_the_index_finds_what_reading_every_word_finds(parts: bool, given_texts: list[str]) -> None:
    found, whole = find_both(Names(LIST, parts=parts), given_texts)
    assert found == whole


def test_words_that_begin_no_name_open_no_window() -> None:
    data, edges = view_texts(pa.array(["the quick brown fox may wait as long as it likes"] * 9, pa.large_string()))
    names = Names(["Ann Bell", "Noor"])
    assert len(names._find_windows(data, edges)) == 0


def test_a_large_column_is_read_through_the_index_and_a_small_one_as_it_is() -> None:
    names = Names(LIST)
    small = pa.array(["to Jörg Strauß", "none", "Ann O'Neill-Bell, May"], pa.large_string())
    large = pa.array([*small.to_pylist(), "lorem ipsum dolor " * 300_000], pa.large_string())
    assert list(names.find_column(large)) == list(names.find_column(small)) != []


def test_no_names_find_nothing() -> None:
    assert find_both(Names([]), ["Ann", ""]) == ({}, {})
