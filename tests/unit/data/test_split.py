from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.core.errors import InvalidInput
from espalier.core.types import Example
from espalier.core.types.examples import Split
from espalier.data.leaks import find_leaks, refuse_leaks
from espalier.data.nearness import find_pairs, shingle
from espalier.data.split import SplitSpec, Unit, assign_splits

HELD_OUT = {"test": 0, "validation": 1, "train": 2}


def unit(key: str, stratum: str = "") -> Unit:
    return Unit(key, stratum)


def split_texts(rows: list[tuple[str, str]], spec: SplitSpec) -> list[Split]:
    """(key, text) of each example -> its split, near-duplicates found as a build finds them."""
    near = find_pairs([shingle(text) for _, text in rows], spec.near)
    return assign_splits([unit(key) for key, _ in rows], near, spec)


def units(count: int, stratum: str = "") -> list[Unit]:
    return [unit(f"{stratum}{number}", stratum) for number in range(count)]


def test_shares_are_about_what_was_asked_for() -> None:
    counts = Counter(assign_splits(units(2000), [], SplitSpec(test=0.1, validation=0.2)))
    assert abs(counts["test"] - 200) < 45 and abs(counts["validation"] - 400) < 60


def test_another_salt_gives_another_division() -> None:
    assert assign_splits(units(200), [], SplitSpec()) != assign_splits(units(200), [], SplitSpec(salt="b"))


def test_a_split_that_was_asked_for_is_not_left_empty_where_there_are_enough_groups() -> None:
    for size in range(3, 40):
        assert set(assign_splits(units(size), [], SplitSpec(test=0.02, validation=0.02))) == {
            "train",
            "validation",
            "test",
        }
    assert set(assign_splits(units(50), [], SplitSpec(test=0, validation=0))) == {"train"}
    assert assign_splits(units(1), [], SplitSpec(test=0.02)) == ["train"]


def alone(key: int) -> str:
    return f"{key} alone {key} stands {key} here {key}"


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
    before = [(str(key), alone(key)) for key in [*old, 2000, 2006]]  # the last two: test, validation
    joined = [(f"twin{a}-{b}", alone(a)) for a, b in twins] + [(str(b), alone(a)) for a, b in twins]
    after = [*((str(key), alone(key)) for key in new), *joined, *before]
    splits_before = split_texts(before, spec)
    splits_after = split_texts(after, spec)[-len(before) :]
    assert all(HELD_OUT[b] >= HELD_OUT[a] for b, a in zip(splits_before, splits_after, strict=True))
    if not twins:
        assert splits_before == splits_after


def test_units_of_one_key_share_a_split() -> None:
    many = units(50) * 4
    splits = assign_splits(many, [], SplitSpec(test=0.3, validation=0.3))
    assert all(len({s for u, s in zip(many, splits, strict=True) if u.key == str(key)}) == 1 for key in range(50))


def test_near_duplicates_share_a_split_and_so_do_their_near_duplicates() -> None:
    words = [f"w{n}" for n in range(60)]
    chain = [(f"k{step}", " ".join([f"x{n}" for n in range(4 * step)] + words[4 * step :])) for step in range(8)]
    spec = SplitSpec(test=0.4, validation=0.3)
    assert len(set(split_texts(chain, spec))) == 1
    assert len(set(assign_splits([unit(key) for key, _ in chain], [], spec))) > 1  # apart, they would be parted


def test_a_small_stratum_gets_its_share() -> None:
    rare = units(30, "rare")
    splits = assign_splits(
        [*units(1000, "common"), *rare], [], SplitSpec(test=0.1, validation=0.1, stratify_by=("format",))
    )
    for stratum, size in (("common", 1000), ("rare", 30)):
        part = Counter(splits[:1000] if stratum == "common" else splits[1000:])
        assert part["test"] >= size // 10 and part["validation"] >= size // 10


def test_what_an_earlier_version_held_out_stays_so_with_strata() -> None:
    spec = SplitSpec(test=0.2, validation=0.1, stratify_by=("format",))
    first = [*units(40, "a"), *units(12, "b")]
    splits = dict(zip([u.key for u in first], assign_splits(first, [], spec), strict=True))
    grown = [*units(90, "a"), *units(50, "b")]
    after = dict(zip([u.key for u in grown], assign_splits(grown, [], spec, splits), strict=True))
    assert {key: after[key] for key in splits} == splits


# Leaks

TEXT = "the pump on the second floor makes a loud noise in the morning and stops at noon each day"


def placed(*rows: tuple[Split, str]) -> list[Example]:
    return [Example(f"ex_{number}", text=text, split=split) for number, (split, text) in enumerate(rows, 1)]


def test_a_text_on_both_sides_is_refused_with_the_pair() -> None:
    examples = placed(("train", TEXT), ("train", "another text altogether about a valve"), ("test", TEXT + " now"))
    near = find_pairs([shingle(example.text) for example in examples], 0.8)
    with pytest.raises(InvalidInput, match=r"1 pairs.*\n.*ex_1 \(train\) ~ ex_3 \(test\), Jaccard 0\.9"):
        refuse_leaks(examples, near)


def test_likeness_within_a_split_is_no_leak() -> None:
    examples = placed(("train", TEXT), ("train", TEXT), ("train", TEXT))
    near = find_pairs([shingle(example.text) for example in examples], 0.8)
    assert len(near) == 3 and find_leaks(examples, near) == []
    refuse_leaks(examples, near)
