"""Tokenized documents -> strips -> packs: documents end to end within a token budget, nothing padded.

A strip is one document as a model computes it: which token attends to which, which position predicts what. A pack is
strips one after another; no token of one sees a token of another. Pure: the same lengths, budget and seed give the
same packs. Knows no model and no objective.

Legend: t positions, s segments, r rows (predictions that may carry loss).
"""

from __future__ import annotations

import bisect
import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from espalier.tokens.mask import Tokenized

Int32: TypeAlias = npt.NDArray[np.int32]
Int64: TypeAlias = npt.NDArray[np.int64]
Float32: TypeAlias = npt.NDArray[np.float32]
Extras: TypeAlias = Mapping[str, npt.NDArray[Any]]

Answer: TypeAlias = tuple[Sequence[int], Sequence[float]]  # ids, and the loss weight of each


@dataclass(frozen=True, slots=True)
class Strip:
    """One document laid out for the model.

    A segment (start, end, prefix_start, prefix_end) attends causally to itself and to all of its prefix; a plain
    document is one segment without prefix (0, 0). A row may repeat: the last token of a shared prompt predicts the
    first token of every answer to it.
    """

    id: str
    ids: Int32  # (t,)
    positions: Int32  # (t,) place of each token in its own sequence
    segments: Int32  # (s, 4)
    rows: Int32  # (r,) position whose output predicts
    targets: Int32  # (r,) what: a token, or a label's index under a classifying head
    weights: Float32  # (r,)
    sequences: Int32  # (r,) which of the document's sequences a row belongs to, from 0 upwards
    extras: Extras = field(default_factory=dict)  # a method's own numbers

    def __len__(self) -> int:
        """Tokens computed."""
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Pack:
    """Strips end to end; rows and segments count from the pack's start, sequences through the pack."""

    ids: Int64  # (t,)
    positions: Int64  # (t,)
    segments: Int32  # (s, 4)
    rows: Int64  # (r,)
    targets: Int64  # (r,)
    weights: Float32  # (r,)
    sequences: Int64  # (r,)
    documents: tuple[str, ...]
    extras: Extras
    seed: int = 0  # what dropout and the like draw from

    @property
    def tokens(self) -> int:
        """Positions computed."""
        return len(self.ids)

    @property
    def sequence_count(self) -> int:
        """How many sequences its rows belong to."""
        return int(self.sequences[-1]) + 1 if len(self.sequences) else 0


def lay(document: Tokenized, extras: Extras | None = None) -> Strip:
    """A plain document. Its last token is only a target, so it takes no position."""
    return lay_branches(document.id, (), [(document.ids, document.weights)], extras)


def lay_branches(id: str, prompt: Sequence[int], answers: Sequence[Answer], extras: Extras | None = None) -> Strip:
    """Answers to one prompt, which is computed once: each answer sees the prompt and itself.

    The weight of an answer's first token counts when there is a prompt to predict it from. What follows an answer's
    last token with a weight cannot change the loss and is left out.
    """
    start = len(prompt)
    ids: list[int] = list(prompt)
    positions = list(range(start))
    segments = [(0, start, 0, 0)] if start else []
    rows, targets, weights, sequences = [], [], [], []
    for number, (answer, wanted) in enumerate(answers):
        loss = np.asarray(wanted, np.float32)
        places = np.flatnonzero(loss if start else np.concatenate([[0], loss[1:]]))
        begin, inputs = len(ids), int(places[-1]) if len(places) else 0
        ids += answer[:inputs]
        positions += range(start, start + inputs)
        if inputs > 0:
            segments.append((begin, begin + inputs, 0, start))
        rows.append(np.where(places > 0, begin + places - 1, start - 1))
        targets.append(np.asarray(answer, np.int32)[places])
        weights.append(loss[places])
        sequences.append(np.full(len(places), number, np.int32))
    return Strip(
        id,
        np.asarray(ids, np.int32),
        np.asarray(positions, np.int32),
        np.asarray(segments, np.int32).reshape(-1, 4),
        np.concatenate(rows).astype(np.int32),
        np.concatenate(targets).astype(np.int32),
        np.concatenate(weights).astype(np.float32),
        np.concatenate(sequences),
        extras or {},
    )


def join(strips: Sequence[Strip], seed: int = 0) -> Pack:
    """Strips end to end. All have the same extras; each extra is concatenated along its first axis."""
    starts = np.cumsum([0, *(len(strip) for strip in strips)])
    counts = np.cumsum([0, *(int(strip.sequences[-1]) + 1 if len(strip.sequences) else 0 for strip in strips)])
    segments = []
    for strip, start in zip(strips, starts, strict=False):
        moved = strip.segments + np.int32(start)
        moved[strip.segments[:, 3] == 0, 2:] = 0  # no prefix stays none
        segments.append(moved)
    return Pack(
        np.concatenate([strip.ids for strip in strips]).astype(np.int64),
        np.concatenate([strip.positions for strip in strips]).astype(np.int64),
        np.concatenate(segments),
        np.concatenate([strip.rows + start for strip, start in zip(strips, starts, strict=False)]).astype(np.int64),
        np.concatenate([strip.targets for strip in strips]).astype(np.int64),
        np.concatenate([strip.weights for strip in strips]),
        np.concatenate([strip.sequences + n for strip, n in zip(strips, counts, strict=False)]).astype(np.int64),
        tuple(strip.id for strip in strips),
        {name: np.concatenate([strip.extras[name] for strip in strips]) for name in strips[0].extras},
        seed,
    )


def fill(lengths: Sequence[int] | Int64, *, pack_tokens: int, seed: str) -> list[list[int]]:
    """Indices of the documents of each pack; each document in exactly one, a longer one than the budget alone.

    Best-fit decreasing: the longest document not yet placed goes where it leaves the least room. The packs are then
    shuffled, so that a run does not begin with its longest documents.
    """
    rooms: list[tuple[int, int]] = []  # (room left, pack), ascending
    packs: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-int(lengths[i]), i)):
        length = int(lengths[index])
        place = bisect.bisect_left(rooms, (length, 0))
        if place < len(rooms):
            room, number = rooms.pop(place)
            packs[number].append(index)
        else:
            room, number = max(pack_tokens, length), len(packs)
            packs.append([index])
        bisect.insort(rooms, (room - length, number))
    random.Random(seed).shuffle(packs)
    return packs


def draw_seed(*parts: str | int) -> int:
    """A 63-bit number that depends on `parts` alone."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8], "big") >> 1
