"""Which documents make up step i: pure, from the documents' order, a seed and a position.

A `Corpus` gives windows of tokenized documents; a window is cut into rectangles (tokens/pack) and these into steps.
The position of a step is a `Cursor`, so a run resumes at any step without replaying what came before. Knows no model.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from espalier.tokens.mask import Tokenized
from espalier.tokens.pack import Rectangle, group, rectangle


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the next step stands: pass over the data, window of the pass, step of the window."""

    epoch: int = 0
    window: int = 0
    step: int = 0

    def to_json(self) -> dict[str, int]:
        return asdict(self)


BEGIN = Cursor()


class Corpus(Protocol):
    """Tokenized documents in windows."""

    def window(self, epoch: int, index: int) -> Sequence[Tokenized]:
        """The documents of one window of one pass, each with a supervised token; empty when the pass is over."""
        ...


class ShuffledCorpus:
    """Documents held in memory, in a new order every pass."""

    def __init__(self, documents: Sequence[Tokenized], *, window_documents: int, seed: str) -> None:
        self._documents, self._size, self._seed = documents, window_documents, seed

    def window(self, epoch: int, index: int) -> Sequence[Tokenized]:
        order = list(range(len(self._documents)))
        random.Random(f"{self._seed}/order/{epoch}").shuffle(order)
        return [self._documents[i] for i in order[index * self._size : (index + 1) * self._size]]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a window becomes steps."""

    rectangle_tokens: int
    rectangles_per_step: int
    seed: str

    def window_steps(self, documents: Sequence[Tokenized], epoch: int, window: int) -> list[list[list[int]]]:
        """Step -> rectangle -> indices into `documents`; each index once."""
        lengths = [len(document.ids) - 1 for document in documents]
        groups = group(lengths, rectangle_tokens=self.rectangle_tokens, seed=f"{self.seed}/{epoch}/{window}")
        size = self.rectangles_per_step
        return [groups[start : start + size] for start in range(0, len(groups), size)]

    def steps(self, corpus: Corpus, start: Cursor = BEGIN) -> Iterator[tuple[Cursor, list[Rectangle]]]:
        """(position after the step, its rectangles) from `start` on, without end; nothing when the corpus is empty."""
        epoch, window, first = start.epoch, start.window, start.step
        while True:
            documents = corpus.window(epoch, window)
            if not documents:
                if window == 0:
                    return
                epoch, window, first = epoch + 1, 0, 0
                continue
            planned = self.window_steps(documents, epoch, window)
            for index in range(first, len(planned)):
                rectangles = [rectangle([documents[i] for i in members]) for members in planned[index]]
                yield Cursor(epoch, window, index + 1), rectangles
            window, first = window + 1, 0

    def count(self, corpus: Corpus, epochs: int) -> int:
        """How many steps `epochs` passes take."""
        total = 0
        for epoch in range(epochs):
            window = 0
            while documents := corpus.window(epoch, window):
                total += len(self.window_steps(documents, epoch, window))
                window += 1
        return total
