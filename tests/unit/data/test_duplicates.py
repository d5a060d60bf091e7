from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.core.types import Document
from espalier.data.dedup.documents import DedupSpec, drop_duplicates
from espalier.data.nearness import find_pairs, jaccard, shingle

MakeDocument = Callable[..., Document]
WORDS = [f"word{n}" for n in range(400)]


def make_text(seed: int, length: int = 80) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def change(text: str, *positions: int) -> str:
    words = text.split()
    for position in positions:
        words[position] = f"changed{position}"
    return " ".join(words)


def test_the_first_of_equal_texts_is_kept_and_named(document: MakeDocument) -> None:
    documents = [document(make_text(1), 1), document(make_text(2), 2), document(make_text(1).upper() + " !", 3)]
    outcome = drop_duplicates(documents, DedupSpec())
    assert [d.dropped_because for d in outcome.documents] == ["", "", "exact duplicate of doc.1 (file-1.txt)"]
    assert outcome.counts == {"exact": 1, "near": 0}


def test_a_near_duplicate_is_dropped_with_its_measured_likeness(document: MakeDocument) -> None:
    text = make_text(1)
    near, far = change(text, 10, 40), change(text, *range(0, 80, 8))
    expected = jaccard(shingle(text), shingle(near))
    outcome = drop_duplicates([document(text, 1), document(near, 2), document(far, 3)], DedupSpec())
    assert expected > 0.8 > jaccard(shingle(text), shingle(far))
    assert [d.dropped_because for d in outcome.documents] == [
        "",
        f"near duplicate of doc.1 (file-1.txt), Jaccard {expected:.2f}",
        "",
    ]


def test_what_is_like_a_dropped_text_only_is_kept(document: MakeDocument) -> None:
    text = make_text(1)
    once = change(text, 10, 20)
    twice = change(once, 50, 60)
    assert jaccard(shingle(text), shingle(twice)) < 0.8 <= jaccard(shingle(once), shingle(twice))
    outcome = drop_duplicates([document(text, 1), document(once, 2), document(twice, 3)], DedupSpec())
    assert [bool(d.dropped_because) for d in outcome.documents] == [False, True, False]


def test_near_can_be_switched_off(document: MakeDocument) -> None:
    text = make_text(1)
    outcome = drop_duplicates([document(text, 1), document(change(text, 10), 2)], DedupSpec(near=1))
    assert not any(d.dropped_because for d in outcome.documents)


@given(st.lists(st.sampled_from(WORDS[:6]), max_size=12), st.lists(st.sampled_from(WORDS[:6]), max_size=12))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_likeness_is_symmetric_and_one_with_itself(left: list[str], right: list[str]) -> None:
    one, other = shingle(" ".join(left)), shingle(" ".join(right))
    assert jaccard(one, other) == jaccard(other, one)
    assert 0 <= jaccard(one, other) <= 1
    assert jaccard(one, one) == (1 if left else 0)


@given(st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_the_same_pairs_are_found_in_any_order(shuffler: random.Random) -> None:
    texts = [make_text(n) for n in range(10)] + [change(make_text(n), n, n + 30) for n in range(10)]
    order = list(range(len(texts)))
    shuffler.shuffle(order)
    pairs = find_pairs([shingle(texts[index]) for index in order], 0.8)
    assert {frozenset((order[p.first], order[p.second])) for p in pairs} == {frozenset((n, n + 10)) for n in range(10)}


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9])
def test_hashing_finds_the_pairs_that_comparing_all_finds(threshold: float) -> None:
    random_ = random.Random(3)
    texts = []
    for seed in range(120):
        text = make_text(seed, 60)
        texts += [text, change(text, *random_.sample(range(60), random_.randint(0, 8)))]
    shingles = [shingle(text) for text in texts]
    everything = {
        (one, other)
        for other in range(len(texts))
        for one in range(other)
        if jaccard(shingles[one], shingles[other]) >= threshold
    }
    found = {(pair.first, pair.second) for pair in find_pairs(shingles, threshold)}
    assert found <= everything and len(everything) > 20
    assert len(found) >= 0.99 * len(everything)
