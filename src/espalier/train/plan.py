"""Which documents make up step i: pure, from the documents' order, a seed and a position.

A `Corpus` gives windows of documents; a window is filled into packs (tokens/pack) and these into steps. The position of
a step is a `Cursor`, so a run resumes at any step without replaying what came before. Knows no model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from espalier.tokens.pack import Int64, Pack, Strip, draw_seed, fill, join
from espalier.train.corpus import Documents


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
    """Documents, and the windows in which a run goes through them."""

    @property
    def documents(self) -> Documents: ...

    def window(self, epoch: int, index: int) -> Sequence[int] | Int64:
        """The numbers of one window's documents; none when the pass is over."""
        ...


@dataclass(frozen=True, slots=True)
class Strips:
    """Documents held in memory."""

    strips: Sequence[Strip]
    digest: str = ""

    def __len__(self) -> int:
        return len(self.strips)

    @property
    def lengths(self) -> Sequence[int]:
        return [len(strip) for strip in self.strips]

    def strip(self, index: int) -> Strip:
        return self.strips[index]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a window becomes steps."""

    pack_tokens: int
    packs_per_step: int
    seed: str

    def window_steps(self, lengths: Sequence[int], epoch: int, window: int) -> list[list[list[int]]]:
        """Step -> pack -> indices of the window's documents; each index once."""
        packs = fill(lengths, pack_tokens=self.pack_tokens, seed=f"{self.seed}/{epoch}/{window}")
        size = self.packs_per_step
        return [packs[start : start + size] for start in range(0, len(packs), size)]

    def steps(self, corpus: Corpus, start: Cursor = BEGIN) -> Iterator[tuple[Cursor, list[Pack]]]:
        """(position after the step, its packs) from `start` on, without end; nothing when the corpus is empty."""
        epoch, window, first = start.epoch, start.window, start.step
        while True:
            numbers = corpus.window(epoch, window)
            if not len(numbers):
                if window == 0:
                    return
                epoch, window, first = epoch + 1, 0, 0
                continue
            planned = self.window_steps(_lengths(corpus, numbers), epoch, window)
            for index in range(first, len(planned)):
                packs = [
                    join(
                        [corpus.documents.strip(int(numbers[i])) for i in members],
                        draw_seed(self.seed, epoch, window, index, place),
                    )
                    for place, members in enumerate(planned[index])
                ]
                yield Cursor(epoch, window, index + 1), packs
            window, first = window + 1, 0

    def count(self, corpus: Corpus, epochs: int) -> int:
        """How many steps `epochs` passes take."""
        total = 0
        for epoch in range(epochs):
            window = 0
            while len(numbers := corpus.window(epoch, window)):
                total += len(self.window_steps(_lengths(corpus, numbers), epoch, window))
                window += 1
        return total

    def packs(self, strips: Sequence[Strip]) -> list[Pack]:
        """Some strips as packs, for looking at them: the same packs every time."""
        groups = fill([len(strip) for strip in strips], pack_tokens=self.pack_tokens, seed=f"{self.seed}/fixed")
        return [join([strips[i] for i in members]) for members in groups]


def _lengths(corpus: Corpus, numbers: Sequence[int] | Int64) -> list[int]:
    lengths = corpus.documents.lengths
    return [int(lengths[number]) for number in numbers]
