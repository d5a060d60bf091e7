"""KTO's reference point: every prompt also gets an answer to another prompt, which says how far the policy has moved.

The mean log-ratio of such mismatched answers estimates the policy's divergence from the reference (arXiv:2402.01306
section 4.1). Which answer goes to which prompt depends on the documents alone, so its reference can be computed once
and a step may be cut in any way. Knows strips; knows no model.

Legend: d documents.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xxhash

from espalier.core.ids import digest_of
from espalier.tokens.pack import Answer, Int64, Strip, lay_branches
from espalier.train.corpus import Documents
from espalier.train.documents import parts_of
from espalier.train.preference.pairs import DESIRABLE, FOREIGN, UNDESIRABLE

_LOOK_AHEAD = 16  # documents passed over in search of one with another prompt


class Mismatched:
    """Documents of `pairs.verdicts`, each with as many foreign answers as it has own ones, after its own."""

    def __init__(self, documents: Documents, context_tokens: int) -> None:
        self._documents, self._context = documents, context_tokens
        self._partners = _choose_partners(documents)
        self.lengths: Int64 = np.zeros(len(documents), np.int64)
        self.desirable = self.undesirable = 0  # how many answers are called so
        for index in range(len(documents)):
            strip = self.strip(index)
            self.lengths[index] = len(strip)
            self.desirable += int((strip.extras["verdict"] == DESIRABLE).sum())
            self.undesirable += int((strip.extras["verdict"] == UNDESIRABLE).sum())
        self.parts = parts_of(documents)
        self.digest = digest_of(["mismatched/1", documents.digest, context_tokens])

    def __len__(self) -> int:
        return len(self._documents)

    def strip(self, index: int) -> Strip:
        own = self._documents.strip(index)
        prompt, answers = unlay(own)
        room = self._context - len(prompt)
        _, others = unlay(self._documents.strip(int(self._partners[index])))
        foreign = [_cut(others[number % len(others)], room) for number in range(len(answers))]
        verdict = np.append(own.extras["verdict"], np.full(len(answers), FOREIGN, np.int32))
        return lay_branches(own.id, prompt, [*answers, *foreign], {"verdict": verdict})


def unlay(strip: Strip) -> tuple[list[int], list[Answer]]:
    """The prompt and the answers `lay_branches` made the strip of; every answer has a token with a weight."""
    start = int(strip.segments[0, 1])
    segments = {int(begin): int(end) for begin, end, _, _ in strip.segments[1:]}
    answers: list[Answer] = []
    begin = start
    for number in range(int(strip.sequences[-1]) + 1):
        own = strip.sequences == number
        rows = strip.rows[own]
        inputs = strip.ids[begin : segments[begin]].tolist() if rows[-1] >= start else []
        ids = [*inputs, int(strip.targets[own][-1])]
        weights = [0.0] * len(ids)
        for row, weight in zip(rows.tolist(), strip.weights[own].tolist(), strict=True):
            weights[row - begin + 1 if row >= start else 0] = weight
        answers.append((ids, weights))
        begin += len(inputs)
    return strip.ids[:start].tolist(), answers


def _choose_partners(documents: Documents) -> Int64:
    """For each document the one whose answers it borrows: the next in a fixed random order with another prompt. (d,)"""
    # Raw bits of Philox, whose stream is fixed for good, sorted.
    order = np.argsort(np.random.Philox(key=0).random_raw(len(documents)), kind="stable").astype(np.int64)
    prompts = [_prompt_of(documents.strip(int(i))) for i in order]
    partners = np.empty(len(order), np.int64)
    for place, index in enumerate(order.tolist()):
        ahead = [(place + step) % len(order) for step in range(1, _LOOK_AHEAD + 1)]
        found = next((other for other in ahead if prompts[other] != prompts[place]), ahead[0])
        partners[index] = order[found]
    return partners


def _prompt_of(strip: Strip) -> int:
    return xxhash.xxh3_64_intdigest(strip.ids[: int(strip.segments[0, 1])].tobytes())


def _cut(answer: Answer, room: int) -> Answer:
    """At most `room` tokens of an answer, of which there are some."""
    ids: Sequence[int] = answer[0][:room]
    weights: Sequence[float] = answer[1][:room]
    return (ids, weights) if any(weights) else (answer[0][:1], [1.0])
