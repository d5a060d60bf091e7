"""References: the one way anything versioned is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.core.errors import InvalidInput
from espalier.core.refs import KINDS, Ref

NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True)
SELECTORS = st.one_of(
    st.integers(1, 10**6).map(lambda n: f"v{n}"),
    st.sampled_from(["latest", "production", "staging", "sha256:" + "a" * 64]),
)


@given(kind=st.sampled_from(KINDS), name=NAMES, selector=SELECTORS)
def test_a_reference_reads_back_as_it_was_written(kind: str, name: str, selector: str) -> None:
    assert Ref.parse(str(Ref(kind, name, selector))) == Ref(kind, name, selector)


def test_the_kind_may_be_left_out_where_only_one_fits() -> None:
    assert Ref.parse("support@v3", kind="model") == Ref("model", "support", "v3")
    assert Ref.parse("support", kind="model") == Ref("model", "support", "latest")
    assert Ref.parse("support@sha256:" + "0" * 64, kind="model").selector.startswith("sha256:")


def test_a_version_selector_has_a_number_and_an_alias_has_none() -> None:
    assert Ref.parse("model:support@v12").version == 12
    assert Ref.parse("model:support@production").version is None


@pytest.mark.parametrize(
    "text", ["model:", "model:Support", "model:a/b@v1", "model:a@v0", "model:a@V1", "nonsense", "model:a@"]
)
def test_what_is_no_reference_is_refused_with_a_next_step(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Ref.parse(text)
    assert caught.value.hint


def test_a_misspelt_kind_is_recognised() -> None:
    with pytest.raises(InvalidInput, match="did you mean `dataset`"):
        Ref.parse("datset:support@v1")


def test_a_reference_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidInput, match="names a dataset, a model is wanted"):
        Ref.parse("dataset:support@v1", kind="model")
