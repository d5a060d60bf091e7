"""Runs of documents whose reference log-probabilities are computed and kept together. Knows no model and no file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from espalier.tokens.pack import Int64, Strip, fill
from espalier.train.corpus import Documents

BLOCK_TOKENS = 1 << 15  # what a kill may cost: a few seconds' work
Float64 = npt.NDArray[np.float64]


class Block:
    """A run of documents whose numbers are kept in one file."""

    def __init__(self, documents: Documents, span: range) -> None:
        self.documents, self.span = documents, span
        self.counts: Int64 = np.zeros(0, np.int64)  # sequences of each document
        self.logp: Float64 | None = None  # None = nothing is known of the block
        self._left = 0  # sequences of which nothing is known

    @property
    def known(self) -> Float64:
        """The log-probabilities of all its sequences, in order."""
        return np.zeros(0) if self.logp is None else self.logp

    @property
    def is_whole(self) -> bool:
        return self._left == 0

    def strips(self) -> list[Strip]:
        return [self.documents.strip(number) for number in self.span]

    def take(self, numbers: Sequence[float]) -> None:
        """Counts, and what was kept."""
        self.counts = np.array(numbers[: len(self.span)], np.int64)
        self.logp = np.array(numbers[len(self.span) :]) if len(numbers) > len(self.span) else None
        self._left = 0 if self.logp is not None else int(self.counts.sum())

    def fill(self, pack_tokens: int) -> list[list[int]]:
        """Its documents in packs, by their place in the block."""
        lengths = [int(self.documents.lengths[number]) for number in self.span]
        return fill(lengths, pack_tokens=pack_tokens, seed="reference")

    def put(self, members: Sequence[int], values: Sequence[float]) -> None:
        """The values of a pack of `fill`, in the pack's order."""
        if self.logp is None:
            self.logp = np.zeros(int(self.counts.sum()))
        ends = np.cumsum(self.counts)
        parts = np.split(np.array(values), np.cumsum(self.counts[members])[:-1])
        for member, part in zip(members, parts, strict=True):
            self.logp[ends[member] - self.counts[member] : ends[member]] = part
        self._left -= len(values)


def cut_spans(lengths: Sequence[int] | Int64) -> list[range]:
    """Runs of documents of at most BLOCK_TOKENS, or one document."""
    starts, held = [0], 0
    for index, length in enumerate(lengths):
        if held and held + length > BLOCK_TOKENS:
            starts.append(index)
            held = 0
        held += int(length)
    return [range(start, end) for start, end in zip(starts, [*starts[1:], len(lengths)], strict=True) if start < end]
