"""Licences and robots tags decide what may be learnt from."""

from __future__ import annotations

from pathlib import Path

import pytest

from espalier.core.types import Document, Span
from espalier.data.clean.licence import LicenceSpec, is_allowed, prepare
from espalier.data.flow.batch import to_batch


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("mit", True),
        ("CC-BY-4.0", True),
        ("CC-BY-NC-4.0", False),
        ("GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only AND MIT", False),
        ("(GPL-3.0-only OR MIT) AND CC-BY-4.0", True),
        ("MIT WITH some-exception", True),
        ("(MIT", False),
        ("MIT and something that is no expression", False),
    ],
)
def test_an_expression_is_allowed_when_it_leaves_an_allowed_choice(licence: str, allowed: bool) -> None:
    check = prepare(LicenceSpec(keep=("MIT", "CC-BY-*"), deny=("*-NC-*",)), Path())
    assert check.judge(licence, None) == (None if allowed else f"licence not allowed: {licence}")


def test_a_sentence_is_taken_as_it_stands() -> None:
    assert is_allowed("free for all", lambda name: name == "free for all")


def test_documents_are_dropped_by_licence_and_robots_tag() -> None:
    tags = [{"licence": "MIT"}, {"licence": "GPL-2.0"}, {}, {"robots": "noindex, NoAI"}, {"robots": "noindex"}]
    batch = to_batch([Document(f"d{n}", "x", Span("0" * 64, "u"), tag) for n, tag in enumerate(tags)])
    outcome = prepare(LicenceSpec(deny=("GPL-*",), unknown="drop"), Path()).apply(batch)
    assert outcome.reasons.to_pylist() == [
        None,
        "licence not allowed: GPL-2.0",
        "licence unknown: there is no tag `licence`",
        "robots noai: the page says noindex, NoAI",
        "licence unknown: there is no tag `licence`",
    ]
    assert prepare(LicenceSpec(robots=()), Path()).apply(batch).reasons is None
    indexed = prepare(LicenceSpec(robots=("noindex",)), Path()).apply(batch).reasons.to_pylist()
    assert [reason is not None for reason in indexed] == [False, False, False, True, True]
