from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.core.config import PriceConfig
from espalier.core.errors import InvalidInput, NotFound, RateLimited
from espalier.gateway.limits import RateLimiter
from espalier.gateway.price import Price, PriceList
from espalier.gateway.route import resolve
from espalier.testing.resolver import FixedResolver


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def _passes(limiter: RateLimiter, key: str, per_minute: int | None = None) -> bool:
    try:
        limiter.take(key, per_minute)
    except RateLimited:
        return False
    return True


def test_a_minute_s_burst_passes_and_then_the_rate_holds() -> None:
    clock = Clock()
    limiter = RateLimiter(60, clock)
    assert sum(_passes(limiter, "a") for _ in range(100)) == 60
    clock.now_s = 2.0
    assert sum(_passes(limiter, "a") for _ in range(100)) == 2
    clock.now_s = 3600.0
    assert sum(_passes(limiter, "a") for _ in range(200)) == 60, "an idle hour saves up no more than a minute"


def test_each_key_has_a_bucket_of_its_own_and_its_own_size() -> None:
    limiter = RateLimiter(2, Clock())
    assert [_passes(limiter, "a") for _ in range(3)] == [True, True, False]
    assert [_passes(limiter, "b", 1) for _ in range(2)] == [True, False]


def test_a_refusal_says_how_long_to_wait_and_waiting_that_long_helps() -> None:
    clock = Clock()
    limiter = RateLimiter(30, clock)
    while _passes(limiter, "a"):
        pass
    with pytest.raises(RateLimited, match=r"try again in 2\.0 s"):
        limiter.take("a")
    clock.now_s += 2.0
    assert _passes(limiter, "a")


@given(st.lists(st.floats(0, 30), max_size=60), st.integers(1, 20))
def test_no_window_of_a_minute_ever_passes_more_than_two_buckets(gaps: list[float], size: int) -> None:
    clock, passed = Clock(), []
    limiter = RateLimiter(size, clock)
    for gap in gaps:
        clock.now_s += gap
        if _passes(limiter, "a"):
            passed.append(clock.now_s)
    assert all(sum(start <= at < start + 60 for at in passed) <= 2 * size for start in passed)


PRICES = PriceList(
    {
        "*": PriceConfig(prompt="1", completion="2"),
        "model:*": PriceConfig(prompt="3", completion="4"),
        "model:support@*": PriceConfig(prompt="5", completion="6"),
        "builtin:seedling": PriceConfig(prompt="0", completion="0"),
    }
)


@pytest.mark.parametrize(
    ("names", "prompt"),
    [
        (["model:support@v1", "support"], "5"),
        (["model:sales@v1", "sales"], "3"),
        (["hf:x/y"], "1"),
        (["model:x@v1", "x", "builtin:seedling"], "0"),
    ],
)
def test_the_most_telling_row_prices_a_model(names: list[str], prompt: str) -> None:
    price = PRICES.find(names)
    assert price is not None and price.prompt == Decimal(prompt)


def test_a_model_no_row_matches_has_no_price() -> None:
    assert PriceList({"model:*": PriceConfig()}).find(["builtin:seedling"]) is None


@given(
    st.integers(0, 10**7), st.integers(0, 10**7), st.decimals("0", "1000", places=6), st.decimals("0", "1000", places=6)
)
def test_a_cost_is_never_less_than_exact_and_less_than_two_nano_dollars_more(
    prompt: int, completion: int, one: Decimal, other: Decimal
) -> None:
    exact = (Fraction(one) * prompt + Fraction(other) * completion) * 1000
    assert exact <= Price(one, other).cost_nusd(prompt, completion) < exact + 2


@pytest.mark.parametrize("text", ["free", "-1", "nan", "inf", ""])
def test_what_is_no_price_is_refused_naming_the_row(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"gateway\.prices\.x\.completion"):
        PriceList({"x": PriceConfig(completion=text)})


def test_a_star_in_the_middle_is_refused() -> None:
    with pytest.raises(InvalidInput):
        PriceList({"model:*@v1": PriceConfig()})


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("support", "model:support@v1"),
        ("support@production", "model:support@v1"),
        ("model:support@v2", "model:support@v2"),
        ("model:support", "model:support@v1"),
        ("builtin:seedling", "builtin:seedling"),
    ],
)
def test_a_name_finds_its_version(name: str, model: str, resolver: FixedResolver) -> None:
    assert resolve(resolver, name).model == model


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("suport", "`support`"),
        ("builtin:sedling", "builtin:seedling"),
        ("support@v9", "support@v"),
        ("gpt-4o", "allowed:"),
        ("Support Bot!", "support"),
    ],
)
def test_an_unknown_name_is_told_the_nearest(name: str, hint: str, resolver: FixedResolver) -> None:
    with pytest.raises(NotFound) as refusal:
        resolve(resolver, name)
    assert hint in refusal.value.hint
    assert refusal.value.where == "model"


def test_a_base_nobody_serves_is_told_how_one_comes_to_be(resolver: FixedResolver) -> None:
    with pytest.raises(NotFound) as refusal:
        resolve(resolver, "hf:somebody/something-else-altogether")
    assert "a row of serve.engines names it" in refusal.value.hint
