from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.core.errors import NotFound
from espalier.core.types import Example, Message
from espalier.data.card import write_stats
from espalier.data.diversity import distinct_share, embed, embedding_spread
from espalier.data.manifest import distribute, name_reason
from espalier.data.stats import Sample, describe_dataset
from espalier.store.examples import write_examples


def chat(number: int, question: str, answer: str) -> Example:
    return Example(f"ex_{number}", [Message("user", question), Message("assistant", answer)])


def test_lengths_are_told_by_split_and_part(tmp_path: Path) -> None:
    rows = [chat(n, "word " * (n + 1), "<r><k>a</k></r>") for n in range(10)]
    write_examples(tmp_path / "data" / "train-00000.parquet", rows)
    stats = describe_dataset(tmp_path, count_tokens=lambda text: 2 * len(text.split()))
    train = stats.splits["train"]
    assert list(stats.splits) == ["train"] and train.examples == 10
    assert (train.question.words.minimum, train.question.words.median, train.question.words.maximum) == (1, 6, 10)
    assert train.question.tokens and train.question.tokens.total == 2 * 55
    assert train.answer.chars.minimum == train.answer.chars.maximum == 15
    assert train.labels == {"k": {"a": 10}}
    assert "train, question, tokens" in write_stats(stats)


def test_pairs_that_are_alike_are_counted_by_how_much(tmp_path: Path) -> None:
    text = " ".join(f"w{n}" for n in range(60))
    rows = [
        chat(1, text, "a"),
        chat(2, text, "b"),
        chat(3, f"{text} more", "c"),
        chat(4, "something else altogether", "d"),
    ]
    write_examples(tmp_path / "data" / "train-00000.parquet", rows)
    stats = describe_dataset(tmp_path)
    assert stats.alike == {"0.5": 0, "0.6": 0, "0.7": 0, "0.8": 0, "0.9": 1, "1.0": 1}
    assert stats.duplicates == {"rows": 0, "questions": 1}
    assert 0.3 < stats.diversity.distinct["2"] < 0.4 and stats.diversity.sampled == 4
    assert "Seen before" in write_stats(stats)


def test_texts_that_fail_a_rule_of_quality_are_counted_by_the_rule(tmp_path: Path) -> None:
    good = "The pump in the hall makes a noise that nobody has heard before, and it is to be looked at. "
    rows = [chat(n, f"{n} {good}", good * 3) for n in range(3)] + [chat(3, "too short", "a")]
    write_examples(tmp_path / "data" / "train-00000.parquet", rows)
    quality = describe_dataset(tmp_path).quality
    assert sum(quality.values()) >= 1 and any("words" in rule for rule in quality)


def test_the_sample_is_the_same_whatever_the_order_and_no_larger_than_asked() -> None:
    texts = [f"text {n}" for n in range(500)]
    one, other = Sample(40), Sample(40)
    for text in texts:
        one.add(text)
    for text in texts[::-1]:
        other.add(text)
    assert one.texts() == other.texts() and len(set(one.texts())) == 40


def test_distinct_n_is_the_share_of_different_runs() -> None:
    assert distinct_share(["a b a b", "A b"], 1) == round(2 / 6, 4)
    assert distinct_share(["a b a b", "a b"], 2) == round(2 / 4, 4)
    assert distinct_share(["a b"], 3) == 0.0


@given(st.lists(st.text("abcdefgh ", min_size=1, max_size=30).filter(str.strip), min_size=2, max_size=8))
def test_the_spread_is_the_mean_distance_of_all_pairs(texts: list[str]) -> None:
    vectors = [embed(text) for text in texts]
    pairs = [1 - float(one @ other) for one, other in itertools.combinations(vectors, 2)]
    assert abs(embedding_spread(texts) - sum(pairs) / len(pairs)) < 1e-3


def test_the_same_text_has_no_spread_and_different_ones_have() -> None:
    assert embedding_spread(["the same words"] * 5) == 0.0 and embedding_spread(["one"]) == 0.0
    assert embedding_spread(["the pump is broken", "invoices of may", "log in to the portal"]) > 0.6


def test_there_are_no_figures_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        describe_dataset(tmp_path)


def test_quantiles_are_values_that_occurred() -> None:
    d = distribute([5, 1, 3, 100, 4])
    assert (d.minimum, d.median, d.maximum, d.total) == (1, 4, 100, 113)
    assert distribute([]).maximum == 0


def test_a_reason_is_named_without_its_particulars() -> None:
    assert name_reason("near duplicate of 3f.1 (a.pdf), Jaccard 0.91") == "near duplicate"
    assert name_reason("too short: 3 characters, min_chars is 20") == "too short"
