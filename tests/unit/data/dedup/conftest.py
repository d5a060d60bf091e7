"""A corpus of made-up texts, and the survey run over it in any cut."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from espalier.core.types import Document, Span
from espalier.data.dedup.step import Deduplication, DedupSpec
from espalier.data.flow.batch import to_batch

WORDS = [f"word{n}" for n in range(4000)]
Decide = Callable[..., list[str | None]]


def make_text(random_: random.Random, words: int = 60) -> str:
    return " ".join(random_.choices(WORDS, k=words))


def substitute(text: str, count: int, random_: random.Random) -> str:
    words = text.split()
    for place in random_.sample(range(len(words)), count):
        words[place] = f"changed{random_.randrange(10**6)}"
    return " ".join(words)


def cut(texts: Sequence[str], sizes: Sequence[int]) -> list[pa.RecordBatch]:
    """The texts as shards of these sizes, over and over."""
    shards, first, turn = [], 0, 0
    while first < len(texts):
        last = first + sizes[turn % len(sizes)]
        documents = [
            Document(f"doc.{number}", texts[number], Span("0" * 64, f"file-{number}.txt"))
            for number in range(first, min(last, len(texts)))
        ]
        shards.append(to_batch(documents))
        first, turn = last, turn + 1
    return shards


@pytest.fixture
def decide(tmp_path: Path) -> Decide:
    """Texts -> the reason each is dropped for, None where it is kept."""

    def run(texts: Sequence[str], spec: DedupSpec | None = None, sizes: Sequence[int] = (7, 3), **more: object) -> list:
        survey = Deduplication(spec or DedupSpec(), tmp_path)
        shards = cut(texts, sizes)
        work = Path(tempfile.mkdtemp(dir=tmp_path))
        decisions = survey.decide([survey.sketch(shard) for shard in shards], shards, work, **more)
        return [reason for decision in decisions for reason in decision.column("reason").to_pylist()]

    return run
