"""Money: integer nano-USD, never less than what a request cost."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.core.errors import InvalidInput
from espalier.core.money import NUSD_PER_USD, format_usd, parse_usd, price_tokens


@given(st.integers(-(10**15), 10**15))
def test_an_amount_reads_back_as_it_was_written(nusd: int) -> None:
    assert parse_usd(format_usd(nusd).replace("$", "")) == nusd


@given(tokens=st.integers(0, 10**9), micro=st.integers(0, 10**9))
def test_a_price_is_the_exact_one_rounded_up_by_less_than_a_nano_usd(tokens: int, micro: int) -> None:
    price = Decimal(micro) / 1_000_000
    exact = Fraction(tokens) * Fraction(price) * NUSD_PER_USD / 1_000_000
    assert 0 <= price_tokens(tokens, price) - exact < 1


def test_three_dollars_a_million_is_three_thousand_nano_usd_a_token() -> None:
    assert price_tokens(1, Decimal(3)) == 3000


@pytest.mark.parametrize("text", ["", "ten", "1e-10", "nan", "inf", "1,5"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_usd(text)
