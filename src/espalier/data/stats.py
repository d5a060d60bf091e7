"""Figures of a finished dataset version that need its rows: lengths by part and split, in tokens too, duplicates,
quality, likeness, diversity.

Reads a dataset's folder, an example at a time; what is quadratic is measured on a sample. Knows no tokenizer: a service
hands over a function that counts tokens.
"""

from __future__ import annotations

import hashlib
import heapq
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from espalier.core.types import Document, Example, Span, Spec
from espalier.data.answers import count_labels
from espalier.data.clean.quality import QualitySpec, prepare
from espalier.data.diversity import distinct_share, embedding_spread
from espalier.data.flow.batch import to_batch
from espalier.data.manifest import Distribution, distribute, name_reason
from espalier.data.nearness import find_pairs
from espalier.store.examples import SPLITS, read_examples

CountTokens = Callable[[str], int]
SAMPLED = 20_000  # questions that likeness and diversity are measured on
_ALIKE = 0.5  # pairs less alike than this are not looked for
_EMBEDDED = 2_000
_JUDGED_AT_ONCE = 1_024
_PARTS = ("question", "answer")


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


class Diversity(Spec):
    """How different the questions are, on a sample of them. `distinct` is by the number of words in a run."""

    sampled: int
    distinct: dict[str, float]
    spread: float  # mean cosine distance of hashed embeddings


class DatasetStats(Spec):
    """The whole version.

    `duplicates` counts rows that say what an earlier one says: as a whole, or only in their question. `quality` counts
    texts by the rule of Gopher's or of repetition that they fail first. `alike` counts pairs of sampled questions by
    the first digit of their Jaccard index; equal ones are paired with the first.
    """

    splits: dict[str, SplitStats]
    duplicates: dict[str, int]
    quality: dict[str, int]
    alike: dict[str, int]
    diversity: Diversity


def describe_dataset(folder: Path, count_tokens: CountTokens | None = None) -> DatasetStats:
    """Read every example of the dataset in `folder`, one by one. Raises NotFound when there is none."""
    sample, seen, judge = Sample(), Seen(), Judge()
    splits = {}
    for split in SPLITS:
        counting = _Counting(count_tokens)
        examples = _watch(read_examples(folder, split), sample, seen, judge)
        labels = count_labels(counting.measure(examples))
        if counting.examples:
            splits[split] = counting.describe(labels)
    questions = sample.texts()
    alike = {f"{tenth / 10:.1f}": 0 for tenth in range(int(_ALIKE * 10), 11)}
    for pair in find_pairs(questions, _ALIKE):
        alike[f"{int(pair.jaccard * 10) / 10:.1f}"] += 1
    diversity = Diversity(
        sampled=len(questions),
        distinct={str(words): distinct_share(questions, words) for words in (1, 2, 3)},
        spread=embedding_spread(questions[:_EMBEDDED]),
    )
    return DatasetStats(
        splits=splits, duplicates=seen.duplicates, quality=judge.failing(), alike=alike, diversity=diversity
    )


class Sample:
    """The same questions of a version whatever their order: those whose hashes are least."""

    def __init__(self, size: int = SAMPLED) -> None:
        self._size = size
        self._heap: list[tuple[int, int, str]] = []  # minus the hash, so that the greatest is first
        self._count = 0

    def add(self, text: str) -> None:
        """One more question; kept while there is room, or instead of one with a greater hash."""
        self._count += 1
        item = (-_hash(text), -self._count, text)
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, item)
        else:
            heapq.heappushpop(self._heap, item)

    def texts(self) -> list[str]:
        """The sample, in a fixed order."""
        return [text for *_, text in sorted(self._heap, reverse=True)]


class Seen:
    """Counts rows and questions that occurred before, by 64 bits of each."""

    def __init__(self) -> None:
        self.duplicates = {"rows": 0, "questions": 0}
        self._known: dict[str, set[int]] = {"rows": set(), "questions": set()}

    def add(self, question: str, answer: str) -> None:
        """One more row."""
        for name, text in (("rows", f"{question}\0{answer}"), ("questions", question)):
            key = _hash(text)
            self.duplicates[name] += key in self._known[name]
            self._known[name].add(key)


class Judge:
    """Counts texts that fail the rules of the cleaning step `quality`, some hundred at a time."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._counts: Counter[str] = Counter()

    def add(self, text: str) -> None:
        """One more text."""
        self._texts.append(text)
        if len(self._texts) == _JUDGED_AT_ONCE:
            self._judge()

    def failing(self) -> dict[str, int]:
        """Texts by the rule they fail first, the commonest first."""
        self._judge()
        return dict(sorted(self._counts.items(), key=lambda item: (-item[1], item[0])))

    def _judge(self) -> None:
        if not self._texts:
            return
        documents = (Document(str(n), text, Span("", "")) for n, text in enumerate(self._texts))
        outcome = prepare(QualitySpec(), Path()).apply(to_batch(documents))
        reasons = outcome.reasons.to_pylist() if outcome.reasons is not None else []
        self._counts.update(name_reason(reason) for reason in reasons if reason)
        self._texts = []


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _watch(examples: Iterable[Example], sample: Sample, seen: Seen, judge: Judge) -> Iterator[Example]:
    for example in examples:
        question, answer = question_of(example), answer_of(example)
        sample.add(question)
        seen.add(question, answer)
        judge.add("\n\n".join(filter(None, (question, answer))))
        yield example


def question_of(example: Example) -> str:
    """What stands before the answer, or the text of an example without messages."""
    turns = example.messages or example.chosen
    return "\n".join(turn.content for turn in turns[:-1]) if turns else example.text


def answer_of(example: Example) -> str:
    """The last assistant message; empty for raw text."""
    turns = example.messages or example.chosen
    return turns[-1].content if turns else ""


class _Counting:
    """The lengths of a split's questions and answers, a number each."""

    def __init__(self, count_tokens: CountTokens | None) -> None:
        self._count_tokens = count_tokens
        self._lengths = {part: {unit: array("q") for unit in ("chars", "words", "tokens")} for part in _PARTS}
        self.examples = 0

    def measure(self, examples: Iterable[Example]) -> Iterator[str]:
        """The answers of the examples, each measured with its question on its way."""
        for example in examples:
            self.examples += 1
            answer = answer_of(example)
            for part, text in zip(_PARTS, (question_of(example), answer), strict=True):
                lengths = self._lengths[part]
                lengths["chars"].append(len(text))
                lengths["words"].append(len(text.split()))
                if self._count_tokens:
                    lengths["tokens"].append(self._count_tokens(text))
            yield answer

    def describe(self, labels: dict[str, dict[str, int]]) -> SplitStats:
        """What was measured."""
        question, answer = (self._spread(part) for part in _PARTS)
        return SplitStats(examples=self.examples, question=question, answer=answer, labels=labels)

    def _spread(self, part: str) -> Lengths:
        lengths = self._lengths[part]
        return Lengths(
            chars=distribute(lengths["chars"]),
            words=distribute(lengths["words"]),
            tokens=distribute(lengths["tokens"]) if self._count_tokens else None,
        )
