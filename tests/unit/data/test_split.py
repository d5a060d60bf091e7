from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.core.errors import InvalidInput
from espalier.data.leaks import Placed, find_leaks, refuse_leaks
from espalier.data.nearness import shingle
from espalier.data.split import SplitSpec, Unit, assign_splits

HELD_OUT = {"test": 0, "validation": 1, "train": 2}


def unit(key: str, text: str = "", stratum: str = "") -> Unit:
    return Unit(key, shingle(text or f"{key} alone {key} stands {key} here {key}"), stratum)


def units(count: int, stratum: str = "") -> list[Unit]:
    return [unit(f"{stratum}{number}", stratum=stratum) for number in range(count)]


def test_shares_are_about_what_was_asked_for() -> None:
    counts = Counter(assign_splits(units(2000), SplitSpec(test=0.1, validation=0.2)))
    assert abs(counts["test"] - 200) < 45 and abs(counts["validation"] - 400) < 60


def test_another_salt_gives_another_division() -> None:
    assert assign_splits(units(200), SplitSpec()) != assign_splits(units(200), SplitSpec(salt="b"))


@given(
    old=st.lists(st.integers(0, 60), min_size=1, max_size=40),
    new=st.lists(st.integers(0, 60), max_size=40),
    twins=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=10),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_growth_moves_nothing_out_of_what_is_held_out(
    old: list[int], new: list[int], twins: list[tuple[int, int]]
) -> None:
    """Not even when what comes joins two groups, and wherever it stands in the order."""
    spec = SplitSpec(test=0.3, validation=0.3)
    before = [unit(str(key)) for key in old]
    joined = [unit(f"twin{a}-{b}", f"{a} alone {a} stands {a} here {a}") for a, b in twins]
    joined += [unit(f"{b}", f"{a} alone {a} stands {a} here {a}") for a, b in twins]
    after = [*(unit(str(key)) for key in new), *joined, *before]
    splits_before = assign_splits(before, spec)
    splits_after = assign_splits(after, spec)[-len(before) :]
    assert all(HELD_OUT[b] >= HELD_OUT[a] for b, a in zip(splits_before, splits_after, strict=True))
    if not twins:
        assert splits_before == splits_after


def test_units_of_one_key_share_a_split() -> None:
    many = [unit(str(number % 50), f"text {number} of its own {number}") for number in range(200)]
    splits = assign_splits(many, SplitSpec(test=0.3, validation=0.3))
    assert all(len({s for u, s in zip(many, splits, strict=True) if u.key == str(key)}) == 1 for key in range(50))


def test_near_duplicates_share_a_split_and_so_do_their_near_duplicates() -> None:
    words = [f"w{n}" for n in range(60)]
    chain = [unit(f"k{step}", " ".join([f"x{n}" for n in range(4 * step)] + words[4 * step :])) for step in range(8)]
    assert len(set(assign_splits(chain, SplitSpec(test=0.4, validation=0.3)))) == 1


def test_a_small_stratum_gets_its_share() -> None:
    rare = units(30, "rare")
    splits = assign_splits(
        [*units(1000, "common"), *rare], SplitSpec(test=0.1, validation=0.1, stratify_by=("format",))
    )
    for stratum, size in (("common", 1000), ("rare", 30)):
        part = Counter(splits[:1000] if stratum == "common" else splits[1000:])
        assert part["test"] >= size // 10 and part["validation"] >= size // 10


def test_what_an_earlier_version_held_out_stays_so_with_strata() -> None:
    spec = SplitSpec(test=0.2, validation=0.1, stratify_by=("format",))
    first = [*units(40, "a"), *units(12, "b")]
    splits = dict(zip([u.key for u in first], assign_splits(first, spec), strict=True))
    grown = [*units(90, "a"), *units(50, "b")]
    after = dict(zip([u.key for u in grown], assign_splits(grown, spec, splits), strict=True))
    assert {key: after[key] for key in splits} == splits


# Leaks

TEXT = "the pump on the second floor makes a loud noise in the morning and stops at noon each day"


def test_a_text_on_both_sides_is_refused_with_the_pair() -> None:
    placed = [
        Placed("ex_1", "train", shingle(TEXT)),
        Placed("ex_2", "train", shingle("another text altogether about a valve that leaks oil")),
        Placed("ex_3", "test", shingle(TEXT + " now")),
    ]
    with pytest.raises(InvalidInput, match=r"1 pairs.*\n.*ex_1 \(train\) ~ ex_3 \(test\), Jaccard 0\.9"):
        refuse_leaks(placed, 0.8)


def test_likeness_within_a_split_is_no_leak() -> None:
    placed = [Placed(f"ex_{n}", "train", shingle(TEXT)) for n in range(3)]
    assert find_leaks(placed, 0.8) == []
    refuse_leaks(placed, 0.8)
