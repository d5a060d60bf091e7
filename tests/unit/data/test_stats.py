from __future__ import annotations

from pathlib import Path

import pytest

from espalier.core.errors import NotFound
from espalier.core.types import Example, Message
from espalier.data.card import write_stats
from espalier.data.manifest import distribute, name_reason
from espalier.data.stats import describe_dataset
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
    assert 0.3 < stats.distinct_2 < 0.4


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
