from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.data.dedup.conftest import make_text, substitute

from espalier.data.nearness import find_pairs, hash_text


def shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[n : n + 3]) for n in range(max(1, len(words) - 2))}


def jaccard(one: str, other: str) -> float:
    left, right = shingles(one), shingles(other)
    return len(left & right) / len(left | right)


@given(st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_the_same_pairs_are_found_in_any_order(shuffler: random.Random) -> None:
    texts = [make_text(random.Random(n), 80) for n in range(10)]
    texts += [substitute(text, 2, random.Random(n)) for n, text in enumerate(texts)]
    order = list(range(len(texts)))
    shuffler.shuffle(order)
    pairs = find_pairs([texts[index] for index in order], 0.8)
    assert {frozenset((order[p.first], order[p.second])) for p in pairs} == {frozenset((n, n + 10)) for n in range(10)}
    assert all(pair.first < pair.second for pair in pairs)


@pytest.mark.parametrize("near", [0.5, 0.7, 0.8, 0.9])
def test_hashing_finds_the_pairs_that_comparing_all_finds(near: float) -> None:
    random_ = random.Random(3)
    texts = []
    for seed in range(120):
        text = make_text(random.Random(seed), 60)
        texts += [text, substitute(text, random_.randint(0, 8), random_)]
    everything = {
        (one, other): jaccard(texts[one], texts[other])
        for other in range(len(texts))
        for one in range(other)
        if jaccard(texts[one], texts[other]) >= near
    }
    found = {(pair.first, pair.second): pair.jaccard for pair in find_pairs(texts, near)}
    assert found.items() <= everything.items() and len(everything) > 20
    assert len(found) >= 0.99 * len(everything)


def test_equal_texts_are_paired_with_the_first() -> None:
    pairs = find_pairs(["a b c d", "x", "A, b, c, d!", "a b c d"], 0.8)
    assert [(pair.first, pair.second, pair.jaccard) for pair in pairs] == [(0, 2, 1.0), (0, 3, 1.0)]
    assert hash_text("a b") == hash_text("A, B.") != hash_text("a c")
    assert find_pairs([], 0.8) == []
