"""A gate that knows texts which must not come by: exactly, nearly, or by long runs of their words.

A gate is built once from a stretch of texts (`build_gate`), lies in a folder, and is mapped by whoever judges a batch.
A near-duplicate is found by its bands and verified by its true Jaccard index. Overlap by runs of words follows Brown et
al. 2020, "Language Models are Few-Shot Learners", appendix C: runs of 13 words, those in more than ten texts not
counted; other than there, what counts is the share of a text's runs that stand in one text that comes by.

Legend: r = texts the gate knows, n = texts that come by, w = runs of words, m = hits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from espalier.data.dedup.sets import collect_shingles
from espalier.data.dedup.sketch import HIGH, LOW, band_name, sketch_texts
from espalier.data.dedup.words import Words, read_words
from espalier.data.flow.files import BatchFile, save_batch
from espalier.store.disk import storage_errors

# A run of words in more texts than this says nothing of any of them.
_COMMON = 10
# A key shared by more texts is followed to the first of them only.
_IN_BUCKET = 64
_BITS_PER_RUN = 16
_KEY = np.uint64(32)
_LOW = np.uint64((1 << 32) - 1)


@dataclass(frozen=True, slots=True)
class Bounds:
    """From where on a text is a leak. `near` 1: equal words only; `run_words` 0: runs of words do not count."""

    near: float = 0.8
    shingle_words: int = 3
    run_words: int = 13
    run_share: float = 0.5


@dataclass(frozen=True, slots=True)
class Hit:
    """A text that came by, and the one it is too much alike."""

    row: int
    where: str
    how: str  # "exact", "Jaccard 0.91", or "62% of its runs of 13 words"
    value: float  # the Jaccard index, or the share; exact is 2


def build_gate(folder: Path, names: Sequence[str], texts: pa.LargeStringArray, bounds: Bounds) -> None:
    """Write a gate that knows r texts by these names into `folder`."""
    sketch = sketch_texts(texts, bounds.near, bounds.shingle_words)
    numbers = np.arange(len(texts), dtype=np.uint64)
    high, low = sketch.column(HIGH).to_numpy(), sketch.column(LOW).to_numpy()
    order = np.lexsort((numbers, low, high))
    with storage_errors(folder.parent):
        folder.mkdir(parents=True)
        np.save(folder / "digests.npy", np.stack([high, low, numbers], axis=1)[order])
        for band in range(len(sketch.schema) - 2):
            keys = sketch.column(band_name(band)).to_numpy()
            np.save(folder / f"band-{band:03d}.npy", np.sort((keys << _KEY | numbers)[keys != 0]))
        if bounds.run_words:
            _save_runs(folder, texts, bounds.run_words)
    shingles = collect_shingles(texts, bounds.shingle_words)
    save_batch(folder / "texts.arrow", pa.RecordBatch.from_arrays([pa.array(names), shingles], ["where", "shingles"]))


def judge_texts(folder: Path, texts: pa.LargeStringArray, bounds: Bounds) -> list[Hit]:
    """The worst hit of each of n texts that has one: exact, else the highest Jaccard index, else the highest share."""
    gate = _Gate(folder, bounds)
    words = list(read_words(texts))
    sketch = sketch_texts(texts, bounds.near, bounds.shingle_words, words)
    best: dict[int, Hit] = {}
    for hit in (*gate.find_exact(sketch), *gate.find_near(texts, sketch), *gate.find_runs(words)):
        best.setdefault(hit.row, hit)
    return [best[row] for row in sorted(best)]


class _Gate:
    def __init__(self, folder: Path, bounds: Bounds) -> None:
        self._folder = folder
        self._bounds = bounds
        known = BatchFile(folder / "texts.arrow")[0]
        self._names = known.column("where")
        self._shingles = known.column("shingles")

    def find_exact(self, sketch: pa.RecordBatch) -> list[Hit]:
        digests = np.load(self._folder / "digests.npy", mmap_mode="r")
        high, low = sketch.column(HIGH).to_numpy(), sketch.column(LOW).to_numpy()
        hits = []
        first, last = (np.searchsorted(digests[:, 0], high, side=side) for side in ("left", "right"))
        for row in np.flatnonzero(last > first).tolist():
            same = digests[first[row] : last[row]]
            same = same[same[:, 1] == low[row]]
            if len(same):
                hits.append(Hit(row, self._names[int(same[0, 2])].as_py(), "exact", 2.0))
        return hits

    def find_near(self, texts: pa.LargeStringArray, sketch: pa.RecordBatch) -> list[Hit]:
        """Near-duplicates, verified, the nearest of each row first."""
        from espalier.data.dedup import kernels

        pairs = self._find_candidates(sketch)
        if not len(pairs):
            return []
        rows, places = np.unique(pairs[:, 0], return_inverse=True)
        ours = collect_shingles(texts.take(pa.array(rows)), self._bounds.shingle_words)
        jaccards = np.empty(len(pairs))
        kernels.measure_pairs(
            np.stack([places, pairs[:, 1]], axis=1),
            ours.values.to_numpy(),
            ours.offsets.to_numpy(),
            self._shingles.values.to_numpy(),
            self._shingles.offsets.to_numpy(),
            jaccards,
        )
        order = np.lexsort((pairs[:, 1], -jaccards))
        return [
            Hit(int(pairs[at, 0]), self._names[int(pairs[at, 1])].as_py(), f"Jaccard {jaccards[at]:.2f}", jaccards[at])
            for at in order[jaccards[order] >= self._bounds.near].tolist()
        ]

    def find_runs(self, read: Sequence[Words]) -> list[Hit]:
        """Texts that hold enough of a known text's runs of words, the most of each row first."""
        if not self._bounds.run_words:
            return []
        values, known = (np.load(self._folder / f"{name}.npy", mmap_mode="r") for name in ("runs", "run_texts"))
        bits = np.load(self._folder / "bits.npy", mmap_mode="r")
        totals = np.load(self._folder / "totals.npy")
        found = [np.empty((0, 2), np.int64)]
        first = 0
        for words in read:
            matched = _match_runs(words, self._bounds.run_words, bits, values, known)
            matched[:, 0] += first
            found.append(matched)
            first += len(words.word_offsets) - 1
        pairs, counts = np.unique(np.concatenate(found), axis=0, return_counts=True)
        shares = counts / totals[pairs[:, 1]] if len(pairs) else np.empty(0)
        order = np.lexsort((pairs[:, 1], -shares))
        return [
            Hit(
                int(pairs[at, 0]),
                self._names[int(pairs[at, 1])].as_py(),
                f"{shares[at]:.0%} of its runs of {self._bounds.run_words} words",
                float(shares[at]),
            )
            for at in order[shares[order] >= self._bounds.run_share].tolist()
        ]

    def _find_candidates(self, sketch: pa.RecordBatch) -> NDArray[np.int64]:
        """Pairs (m, 2) of a row and a known text that share a band's key, sorted."""
        found = [np.empty((0, 2), np.int64)]
        for band in range(len(sketch.schema) - 2):
            known = np.load(self._folder / f"band-{band:03d}.npy", mmap_mode="r")
            keys = sketch.column(band_name(band)).to_numpy()
            start = np.searchsorted(known, keys << _KEY)
            end = np.searchsorted(known, (keys << _KEY) | _LOW, side="right")
            counts = np.where(keys != 0, np.minimum(end - start, _IN_BUCKET), 0)
            rows = np.repeat(np.arange(len(keys)), counts)
            nth = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
            others = known[np.repeat(start, counts) + nth] & _LOW
            found.append(np.stack([rows, others.astype(np.int64)], axis=1))
        return np.unique(np.concatenate(found), axis=0)


def hash_runs(words: Words, size: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes of the runs of `size` words (w,) of some texts, and where each text's begin and the last's end."""
    from espalier.data.dedup import kernels

    out = np.empty(len(words.hashes), np.uint64)
    offsets = np.zeros(len(words.word_offsets), np.int64)
    kernels.hash_runs(words.hashes, words.word_offsets, size, out, offsets)
    return out[: offsets[-1]], offsets


def _save_runs(folder: Path, texts: pa.LargeStringArray, size: int) -> None:
    """The different runs of each text that are not common, sorted; whose they are; and how many each text has."""
    from espalier.data.dedup import kernels

    hashed = [hash_runs(words, size) for words in read_words(texts)]
    values = np.concatenate([np.empty(0, np.uint64), *(part for part, _ in hashed)])
    counts = np.concatenate([np.empty(0, np.int64), *(np.diff(offsets) for _, offsets in hashed)])
    runs = np.unique(np.stack([values, np.repeat(np.arange(len(counts)), counts).astype(np.uint64)], axis=1), axis=0)
    _, places, shared = np.unique(runs[:, 0], return_inverse=True, return_counts=True)
    runs = runs[shared[places] <= _COMMON]
    bits = max(10, int(_BITS_PER_RUN * max(1, len(runs)) - 1).bit_length())
    marks = np.zeros((1 << bits) >> 3, np.uint8)
    kernels.mark_bits(runs[:, 0].copy(), 64 - bits, marks)
    np.save(folder / "runs.npy", runs[:, 0])
    np.save(folder / "run_texts.npy", runs[:, 1].astype(np.uint32))
    np.save(folder / "totals.npy", np.bincount(runs[:, 1].astype(np.int64), minlength=len(counts)))
    np.save(folder / "bits.npy", marks)


def _match_runs(
    words: Words, size: int, bits: NDArray[np.uint8], values: NDArray[np.uint64], known: NDArray[np.uint32]
) -> NDArray[np.int64]:
    """(row, known text) for each different run of a row that stands in a known text (m, 2)."""
    from espalier.data.dedup import kernels

    runs, offsets = hash_runs(words, size)
    shift = 64 - int(len(bits) * 8 - 1).bit_length()
    maybe = np.empty(len(runs), np.int64)
    maybe = maybe[: kernels.sift(runs, shift, bits, maybe)]
    start, end = (np.searchsorted(values, runs[maybe], side=side) for side in ("left", "right"))
    maybe = maybe[end > start]
    rows = np.searchsorted(offsets, maybe, side="right") - 1
    pairs = np.unique(np.stack([rows.astype(np.uint64), runs[maybe]], axis=1), axis=0)
    start, end = (np.searchsorted(values, pairs[:, 1], side=side) for side in ("left", "right"))
    counts = end - start
    nth = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    texts = known[np.repeat(start, counts) + nth]
    return np.stack([np.repeat(pairs[:, 0], counts).astype(np.int64), texts.astype(np.int64)], axis=1)
