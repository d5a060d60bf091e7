from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.data.readers.blocks import Code, Heading, Item, Paragraph, Table, write_block, write_blocks
from espalier.data.readers.tabletext import is_form, write_table

CELL = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=12)


def test_a_table_has_a_header_a_rule_and_rows_of_equal_width() -> None:
    assert write_table([["a", "b"], ["1"], ["2", "x|y"]]) == "| a | b |\n| --- | --- |\n| 1 |  |\n| 2 | x\\|y |"


def test_empty_rows_and_empty_outer_columns_are_left_out_but_inner_ones_stay() -> None:
    rows = [["", "a", "", "b", ""], ["", "", "", "", ""], ["", "1", "", "2", ""]]
    assert write_table(rows) == "| a |  | b |\n| --- | --- | --- |\n| 1 |  | 2 |"


@given(st.lists(st.lists(CELL, max_size=5), max_size=6))
def test_whatever_is_in_the_cells_every_row_has_as_many_bars(rows: list[list[str]]) -> None:
    lines = write_table(rows).split("\n")
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


@pytest.mark.parametrize(
    ("rows", "named_rows", "form"),
    [
        ([["Ticket", "A-1"], ["Product", "Scope"]], True, True),
        ([["Ticket", "A-1"], ["Product", "Scope"]], False, False),
        ([["Ticket:", "A-1"], ["Product:", "Scope"]], False, True),
        ([["Ticket", "A-1"], ["Ticket", "A-2"]], True, False),
        ([["Ticket", ""], ["Product", "Scope"]], True, False),
        ([["Ticket", "A-1", "x"]], True, False),
        ([["a" * 61, "A-1"]], True, False),
        ([], True, False),
    ],
)
def test_a_form_is_told_from_a_table_by_what_the_format_says(
    rows: list[list[str]], named_rows: bool, form: bool
) -> None:
    assert is_form(rows, named_rows=named_rows) is form


def test_a_form_is_written_as_fields() -> None:
    assert (
        write_block(Table((("Ticket:", "A-1"), ("Product", "Scope")), named_rows=True)) == "Ticket: A-1\nProduct: Scope"
    )


def test_a_frame_around_a_text_is_no_table() -> None:
    assert write_block(Table((("Only one cell.",),))) == "Only one cell."
    assert write_block(Table((("", "Over."), ("", "Under.")))) == "Over.\n\nUnder."
    assert write_block(Table((("a",), ("b",), ("c",)))) == "| a |\n| --- |\n| b |\n| c |"


def test_blocks_are_parted_by_an_empty_line_and_items_are_not() -> None:
    blocks = [Heading("T", 2), Paragraph("a\n b"), Item("x"), Item("y\nz", 1, 3), Code("if a:\n    b", "python")]
    expected = "## T\n\na\nb\n\n- x\n    3. y\n       z\n\n```python\nif a:\n    b\n```"
    assert write_blocks(blocks) == expected


def test_an_item_is_at_most_one_level_deeper_than_the_one_before() -> None:
    assert write_blocks([Item("a", 4), Item("b", 7), Heading("H"), Item("c", 2)]) == "- a\n    - b\n\n# H\n\n- c"


def test_a_fence_is_longer_than_any_in_the_code() -> None:
    assert write_block(Code("```\nx\n```")) == "````\n```\nx\n```\n````"


def test_empty_blocks_leave_nothing() -> None:
    assert write_blocks([Heading(" "), Paragraph("\n"), Item(""), Table(()), Code(" \n ")]) == ""
