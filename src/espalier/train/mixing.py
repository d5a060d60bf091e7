"""In what order the documents of a mix are learnt: a pure function of (seed, epoch), so a run resumes anywhere.

An epoch is every document of the main dataset once, in a new order, and of every other dataset so many that their
tokens are `share` times the main dataset's: share 0.25 is one token of it for four of the main's. Another dataset is
gone through without repetition, pass after pass, each pass in an order of its own, and the next epoch goes on where
this one ended: no document a second time before all had their first. Tokens are positions computed.

Knows lengths; knows no text, no packs and no model.
"""

from __future__ import annotations

import numpy as np

from espalier.core.errors import InvalidInput
from espalier.tokens.pack import Int64, draw_seed
from espalier.train.corpus import Documents
from espalier.train.documents import Part, parts_of


class MixedCorpus:
    """Windows of `window_documents` documents each, through all epochs. One dataset alone is simply shuffled."""

    def __init__(self, documents: Documents, *, seed: str, window_documents: int) -> None:
        self.documents = documents
        self._seed, self._size = seed, window_documents
        self._parts = parts_of(documents)
        self._lengths = np.asarray(documents.lengths, np.int64)
        self._order: tuple[int, Int64] = (-1, np.zeros(0, np.int64))  # of one epoch, the last that was asked for

    def window(self, epoch: int, index: int) -> Int64:
        """The numbers of one window's documents; none when the epoch is over."""
        known, order = self._order
        if known != epoch:
            order = self.order(epoch)
            self._order = (epoch, order)
        return order[index * self._size : (index + 1) * self._size]

    def order(self, epoch: int) -> Int64:
        """The numbers of all documents of an epoch, in the order they are learnt."""
        main, *others = self._parts
        chosen = [self._permute(main, epoch)] if main.share else []
        chosen += [self._draw(part, epoch) for part in others]
        numbers = np.concatenate(chosen)
        return numbers[_shuffle(len(numbers), self._seed, "epoch", epoch)] if others else numbers

    def _draw(self, part: Part, epoch: int) -> Int64:
        """The documents of one epoch, from where the epoch before ended."""
        main = self._parts[0]
        own = int(self._lengths[part.start : part.stop].sum())
        budget = part.share * int(self._lengths[main.start : main.stop].sum())  # tokens an epoch
        if not budget:
            return np.zeros(0, np.int64)
        if not own:
            raise InvalidInput(f"mix: dataset {part.name!r} has no document to learn from")
        return self._stretch(part, own, epoch * budget, (epoch + 1) * budget)

    def _stretch(self, part: Part, own: int, start_tokens: float, end_tokens: float) -> Int64:
        """The documents that begin, in all passes laid end to end, at start_tokens or later and before end_tokens."""
        taken = []
        for number in range(int(start_tokens // own), int(-(-end_tokens // own))):
            order = self._permute(part, number)
            begins = number * own + np.cumsum(self._lengths[order]) - self._lengths[order]
            taken.append(order[(begins >= start_tokens) & (begins < end_tokens)])
        return np.concatenate([np.zeros(0, np.int64), *taken])

    def _permute(self, part: Part, number: int) -> Int64:
        """The order of pass `number` over a part."""
        return part.start + _shuffle(part.stop - part.start, self._seed, "pass", part.name, number)


def _shuffle(count: int, *seed: str | int) -> Int64:
    """A permutation that depends on `seed` alone: raw bits of Philox (their stream is fixed for good), sorted."""
    bits = np.random.Philox(key=draw_seed(*seed)).random_raw(count)
    return np.argsort(bits, kind="stable").astype(np.int64)
