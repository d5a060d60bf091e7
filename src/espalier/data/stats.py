"""Figures of a finished dataset version that need its rows: lengths by part and split, in tokens too, and likeness.

Reads a dataset's folder. Knows no tokenizer: a service hands over a function that counts tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from espalier.core.types import Example, Spec
from espalier.data.answers import count_labels
from espalier.data.manifest import Distribution, distribute
from espalier.data.nearness import find_pairs
from espalier.store.examples import SPLITS, read_examples

CountTokens = Callable[[str], int]
# Pairs less alike than this are not looked for.
_ALIKE = 0.5


class Lengths(Spec):
    """Of one part of the examples. `tokens` is there when a counter was given."""

    chars: Distribution
    words: Distribution
    tokens: Distribution | None = None


class SplitStats(Spec):
    """One split: how many, how long question and answer are, how the answers' fields are spread."""

    examples: int
    question: Lengths
    answer: Lengths
    labels: dict[str, dict[str, int]]


class DatasetStats(Spec):
    """The whole version.

    `alike` counts pairs of questions by the first digit of their Jaccard index; equal ones are paired with the first.
    `distinct_2` is the share of their word pairs that are different (Li et al. 2016, "A Diversity-Promoting Objective
    Function", section 5): 1 = no repetition.
    """

    splits: dict[str, SplitStats]
    alike: dict[str, int]
    distinct_2: float


def describe_dataset(folder: Path, count_tokens: CountTokens | None = None) -> DatasetStats:
    """Read every example of the dataset in `folder`. Raises NotFound when there is none."""
    examples = list(read_examples(folder))
    questions = [question_of(example) for example in examples]
    alike = {f"{tenth / 10:.1f}": 0 for tenth in range(int(_ALIKE * 10), 11)}
    for pair in find_pairs(questions, _ALIKE):
        alike[f"{int(pair.jaccard * 10) / 10:.1f}"] += 1
    splits = {}
    for split in SPLITS:
        rows = [example for example in examples if example.split == split]
        if rows:
            splits[split] = _describe_split(rows, count_tokens)
    return DatasetStats(splits=splits, alike=alike, distinct_2=_distinct(questions))


def question_of(example: Example) -> str:
    """What stands before the answer, or the text of an example without messages."""
    turns = example.messages or example.chosen
    return "\n".join(turn.content for turn in turns[:-1]) if turns else example.text


def answer_of(example: Example) -> str:
    """The last assistant message; empty for raw text."""
    turns = example.messages or example.chosen
    return turns[-1].content if turns else ""


def _describe_split(examples: Sequence[Example], count_tokens: CountTokens | None) -> SplitStats:
    answers = [answer_of(example) for example in examples]
    return SplitStats(
        examples=len(examples),
        question=_measure([question_of(example) for example in examples], count_tokens),
        answer=_measure(answers, count_tokens),
        labels=count_labels(answers),
    )


def _measure(texts: Sequence[str], count_tokens: CountTokens | None) -> Lengths:
    return Lengths(
        chars=distribute(map(len, texts)),
        words=distribute(len(text.split()) for text in texts),
        tokens=distribute(map(count_tokens, texts)) if count_tokens else None,
    )


def _distinct(texts: Sequence[str]) -> float:
    pairs: set[tuple[str, str]] = set()
    total = 0
    for text in texts:
        words = text.lower().split()
        pairs.update(itertools.pairwise(words))
        total += max(0, len(words) - 1)
    return round(len(pairs) / total, 4) if total else 0.0
