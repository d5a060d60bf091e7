"""docs/tokenising.md says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from espalier.tokens import pretokenizer

PAGE = (Path(__file__).resolve().parents[3] / "docs/tokenising.md").read_text()


def test_the_example_runs_and_counts_what_it_says() -> None:
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert code
    names: dict[str, object] = {}
    exec(compile(code[1], "docs/tokenising.md", "exec"), names)
    said = re.search(r": array\(\[([0-9, ]+)\]\)", code[1])

    assert said
    assert np.array_equal(np.asarray(names["counts"]), [int(number) for number in said[1].split(",")])


def test_every_family_is_in_the_table() -> None:
    for family in (*pretokenizer._FAMILIES.values(), "sentencepiece", "unnamed pattern"):
        assert f"| `{family}` |" in PAGE
