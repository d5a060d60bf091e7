"""What an evaluation of labels says beyond accuracy: macro-F1, each label's part, and which is taken for which.

Made from the same cases, whoever answered: a head that gives labels and a model that writes them are held to one
measure. A label is what stands in a reference; an answer that is none of them is counted, and never right. Knows no
model.

Legend: g clusters of cases, c labels.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from espalier.core.errors import InvalidInput, NotFound
from espalier.evals.cases import Case
from espalier.evals.intervals import RESAMPLES, interval_of
from espalier.metrics.proportion import Interval
from espalier.store.disk import write_file

LABELS_FILE = "labels.json"
_CELLS_AT_ONCE = 2_000_000  # bounds the memory of a bootstrap


@dataclass(frozen=True, slots=True)
class Figure:
    """A value with its 95 % interval."""

    value: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """One label: how often it was wanted and said, and how well it was told."""

    label: str
    wanted: int
    said: int
    precision: float  # 0 where it was never said
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """One label taken for another so many times; `said` is empty for an answer that is no label."""

    wanted: str
    said: str
    count: int


@dataclass(frozen=True, slots=True)
class LabelReport:
    """`labels` in alphabetical order, `confusions` the most frequent first."""

    n: int
    accuracy: Figure
    macro_f1: Figure
    no_label: int  # answers that are none of the labels
    labels: tuple[LabelFigures, ...]
    confusions: tuple[Confusion, ...]


def measure_labels(cases: Sequence[Case], *, seed: int = 0) -> LabelReport:
    """Hold the answers of cases to their references, white space aside.

    Macro-F1 is the plain mean of the labels' F1, so a rare label counts as much as a frequent one; its interval is a
    percentile bootstrap over clusters of cases. Raises InvalidInput for references that are not labels at all.
    """
    wanted = [" ".join(case.reference.split()) for case in cases]
    said = [" ".join(case.answer.split()) for case in cases]
    labels = sorted(set(wanted))
    if len(labels) < 2 or 2 * len(labels) > len(cases) + 1:
        raise InvalidInput(
            f"{len(cases)} cases have {len(labels)} different references, which are no labels",
            hint="`labels: true` is for references that come again and again",
        )
    counts = _count(labels, wanted, said, [case.cluster for case in cases])
    per_label = counts.sum(0)  # (c, 3): right, wanted, said
    macro, bounds = float(_macro_f1(per_label[None])[0]), _bootstrap(counts, seed)
    hits = [float(one == other) for one, other in zip(wanted, said, strict=True)]
    sure = interval_of(hits, [case.cluster for case in cases], ratio=True)
    known = set(labels)
    wrong = Counter((w, s if s in known else "") for w, s in zip(wanted, said, strict=True) if w != s)
    return LabelReport(
        n=len(cases),
        accuracy=Figure(sum(hits) / len(hits), sure.low, sure.high),
        macro_f1=Figure(macro, bounds.low, bounds.high),
        no_label=sum(answer not in known for answer in said),
        labels=tuple(_figures(label, row.tolist()) for label, row in zip(labels, per_label, strict=True)),
        confusions=tuple(
            Confusion(w, s, count) for (w, s), count in sorted(wrong.items(), key=lambda item: (-item[1], item[0]))
        ),
    )


def write_labels(folder: Path, report: LabelReport) -> None:
    """Write `labels.json` beside an evaluation's report. Raises StorageFull."""
    write_file(folder / LABELS_FILE, json.dumps(asdict(report), indent=1, ensure_ascii=False).encode() + b"\n")


def read_labels(folder: Path) -> LabelReport:
    """The report in a folder. Raises NotFound when the evaluation measured no labels."""
    path = folder / LABELS_FILE
    if not path.is_file():
        raise NotFound("this evaluation measured no labels", hint="evaluate again with `labels: true`")
    held = json.loads(path.read_bytes())
    return LabelReport(
        n=held["n"],
        accuracy=Figure(**held["accuracy"]),
        macro_f1=Figure(**held["macro_f1"]),
        no_label=held["no_label"],
        labels=tuple(LabelFigures(**row) for row in held["labels"]),
        confusions=tuple(Confusion(**row) for row in held["confusions"]),
    )


def _count(
    labels: Sequence[str], wanted: Sequence[str], said: Sequence[str], clusters: Sequence[str]
) -> NDArray[np.int64]:
    """How often each label was right, wanted and said in each cluster. (g, c, 3)"""
    place = {label: number for number, label in enumerate(labels)}
    group = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    counts = np.zeros((len(group), len(labels), 3), np.int64)
    for want, answer, cluster in zip(wanted, said, clusters, strict=True):
        row = counts[group[cluster]]
        row[place[want], 1] += 1
        if answer in place:
            row[place[answer], 2] += 1
            row[place[answer], 0] += want == answer
    return counts


def _macro_f1(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """2 right / (wanted + said), the mean over labels that occur. (draws, c, 3) -> (draws,)"""
    total = counts[..., 1] + counts[..., 2]
    f1 = np.divide(2 * counts[..., 0], total, out=np.zeros(total.shape), where=total > 0)
    present = counts[..., 1] > 0  # a label that a draw left out says nothing in it
    return np.asarray((f1 * present).sum(1) / np.maximum(present.sum(1), 1), np.float64)


def _bootstrap(counts: NDArray[np.int64], seed: int) -> Interval:
    draw, groups = np.random.default_rng(seed), len(counts)
    flat = counts.reshape(groups, -1)
    at_once = max(1, _CELLS_AT_ONCE // max(groups, flat.shape[1]))
    found = []
    for start in range(0, RESAMPLES, at_once):
        size = min(at_once, RESAMPLES - start)
        times = draw.multinomial(groups, np.full(groups, 1 / groups), size=size)  # how often each cluster is drawn
        found.append(_macro_f1((times @ flat).reshape(size, *counts.shape[1:])))
    low, high = np.quantile(np.concatenate(found), [0.025, 0.975])
    return Interval(float(low), float(high))


def _figures(label: str, row: Sequence[int]) -> LabelFigures:
    right, wanted, said = row
    return LabelFigures(
        label=label,
        wanted=wanted,
        said=said,
        precision=right / said if said else 0.0,
        recall=right / wanted,
        f1=2 * right / (wanted + said),
    )
