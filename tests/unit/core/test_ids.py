"""Identifiers sort by time; the canonical JSON of a value is unique."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.core import ids

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def test_later_ids_sort_after_earlier_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for at_ms in (1, 31, 32, 1_700_000_000_000, 1_800_000_000_000):
        monkeypatch.setattr(ids, "now_ms", lambda at_ms=at_ms: at_ms)
        made.append(ids.make_id("run"))
    assert made == sorted(made)
    assert len({len(one) for one in made}) == 1


def test_ids_made_at_once_differ() -> None:
    assert len({ids.make_id("run") for _ in range(2000)}) == 2000


@given(st.dictionaries(st.text(), JSON))
def test_the_digest_does_not_depend_on_the_order_of_keys(value: dict[str, object]) -> None:
    turned = dict(reversed(value.items()))
    assert ids.digest_of(value) == ids.digest_of(turned)


def test_the_digest_is_sha256_of_compact_sorted_json() -> None:
    assert ids.digest_of({"b": 1, "a": "ü"}) == hashlib.sha256('{"a":"ü","b":1}'.encode()).hexdigest()
