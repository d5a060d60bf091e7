"""The committed reference is what the operations table says."""

from __future__ import annotations

from pathlib import Path

from espalier.cli.reference import write_reference
from espalier.core.errors import kinds
from espalier.core.operations import load_operations

PAGE = Path(__file__).parents[3] / "docs" / "cli.md"


def test_the_reference_is_up_to_date() -> None:
    assert PAGE.read_text("utf-8") == write_reference(), "run `make docs`"


def test_the_reference_names_every_route_and_exit_code() -> None:
    page = write_reference()
    assert [operation.name for operation in load_operations().values() if f"`{operation.route}`" not in page] == []
    assert [kind.code for kind in kinds().values() if f"\n| {kind.exit_code} |" not in page] == []
