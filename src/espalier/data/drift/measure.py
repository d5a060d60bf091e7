"""`measure_drift`: every test of every slice of two populations, corrected for their number, as one report.

Everything is measured on the samples: the same rows, spec and seed give the same report.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from espalier.data.diversity import embed
from espalier.data.drift.kolmogorov import compare_distributions
from espalier.data.drift.population import Population, Row, Sample
from espalier.data.drift.report import WHOLE, DriftReport, DriftSlice, DriftTest, Verdict, rank
from espalier.data.drift.spec import DriftSpec, Limits
from espalier.data.drift.stability import Stability, compare_categories, compare_numbers
from espalier.data.drift.vocabulary import compare_vocabulary
from espalier.data.drift.wording import compare_embeddings

_NONE = "(none)"
_DIGITS = 6
_PSI_SURE = 0.05  # an index over its limit that chance gives as often is none


@dataclass(frozen=True, slots=True)
class _Found:
    """A test before it is judged."""

    slice: str
    test: str
    statistic: float
    p: float
    because: str


def measure_drift(reference: Population, current: Population, spec: DriftSpec) -> DriftReport:
    """Compare slice by slice; a slice with too few rows on a side is told and not tested.

    A slice of a column that one side knows nothing of (the channel of live prompts) is compared with everything there.
    """
    pairs = _pair(reference, current)
    slices = {name: (one.count, other.count) for name, (one, other) in pairs.items()}
    enough = [name for name, counts in slices.items() if min(counts) >= spec.min_rows]
    measuring = _Measuring(spec)
    found = [test for name in enough for test in measuring.compare(name, *pairs[name])]
    corrected = correct_holm([test.p for test in found])
    tests = [_judge(test, p, spec) for test, p in zip(found, corrected, strict=True)]
    tests.sort(key=lambda test: (rank(test.verdict), test.corrected, -test.statistic, test.slice, test.test))
    told = [_tell(name, counts, tests, enough) for name, counts in slices.items()]
    told.sort(key=lambda one: rank(one.verdict))
    verdicts = [one.verdict for one in told if one.verdict != "too few"]
    return DriftReport(
        verdict=min(verdicts, key=rank, default="too few"),
        slices=tuple(told),
        tests=tuple(tests),
        notes=(*_tell_strangers(reference, current, spec), *_notes(len(found), enough, slices, spec)),
    )


def correct_holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number so that any false alarm at all is as rare as said (Holm 1979).

    It holds however the tests depend on each other, as those of a slice and of the whole do.
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected = [1.0] * len(values)
    greatest = 0.0
    for place, at in enumerate(order):
        greatest = max(greatest, min(1.0, (len(values) - place) * values[at]))
        corrected[at] = greatest
    return corrected


class _Measuring:
    """The tests of one slice after the other; a row's embedding is made once."""

    def __init__(self, spec: DriftSpec) -> None:
        self._spec = spec
        self._embedded: dict[str, NDArray[np.float64]] = {}

    def compare(self, name: str, one: Sample, other: Sample) -> Iterator[_Found]:
        """Every test that is not off, of those both sides have something for."""
        reference, current = one.rows(), other.rows()
        for unit in ("chars", "words", "tokens"):
            yield from self._compare_numbers(name, unit, reference, current)
        for column in dict.fromkeys((*self._spec.categories, *self._spec.slices)):
            yield from self._compare_values(name, column, reference, current)
        tested = reference[: self._spec.tested], current[: self._spec.tested]
        yield from self._compare_texts(name, *tested)

    def _compare_numbers(self, name: str, unit: str, one: list[Row], other: list[Row]) -> Iterator[_Found]:
        if not all(unit in side[0].numbers for side in (one, other)):
            return
        numbers = [np.array([row.numbers[unit] for row in side], np.int64) for side in (one, other)]
        if self._wanted(f"psi:{unit}"):
            index = compare_numbers(numbers[0], numbers[1], self._spec.bins)
            yield _Found(name, f"psi:{unit}", index.psi, index.p, _tell_bin(index))
        if self._wanted(f"ks:{unit}"):
            distance, p = compare_distributions(numbers[0], numbers[1])
            medians = [int(np.median(side)) for side in numbers]
            yield _Found(name, f"ks:{unit}", distance, p, f"median {medians[0]} -> {medians[1]}")

    def _compare_values(self, name: str, column: str, one: list[Row], other: list[Row]) -> Iterator[_Found]:
        if name.startswith(f"{column}=") or not self._wanted(f"psi:{column}"):
            return
        sides = [[row.values.get(column, _NONE) for row in side] for side in (one, other)]
        if all(set(side) != {_NONE} for side in sides):
            index = compare_categories(*sides)
            yield _Found(name, f"psi:{column}", index.psi, index.p, _tell_bin(index))

    def _compare_texts(self, name: str, one: list[Row], other: list[Row]) -> Iterator[_Found]:
        spec = self._spec
        if self._wanted("vocabulary"):
            distance, p, because = compare_vocabulary(
                one, other, spec.vocabulary, spec.permutations, spec.seed, f"vocabulary {name}"
            )
            yield _Found(name, "vocabulary", distance, p, because)
        if self._wanted("embedding"):
            first, second = ([self._embed(row.text) for row in side] for side in (one, other))
            squared, p = compare_embeddings(first, second, spec.permutations, spec.seed, f"embedding {name}")
            yield _Found(name, "embedding", squared, p, "worded otherwise" if squared > 0 else "worded alike")

    def _embed(self, text: str) -> NDArray[np.float64]:
        if text not in self._embedded:
            self._embedded[text] = embed(text)
        return self._embedded[text]

    def _wanted(self, test: str) -> bool:
        return not self._spec.find_limits(test).off


def _judge(found: _Found, corrected: float, spec: DriftSpec) -> DriftTest:
    limits = spec.find_limits(found.test)
    over = _exceeds_index if found.test.startswith("psi") else _exceeds_chance
    verdict: Verdict = "ok"
    for level, limit in (("warn", limits.warn), ("alarm", limits.alarm)):
        if limit is not None and over(found.statistic, corrected, limit, limits):
            verdict = "warn" if level == "warn" else "alarm"
    return DriftTest(
        slice=found.slice,
        test=found.test,
        statistic=round(found.statistic, _DIGITS),
        p=round(found.p, _DIGITS),
        corrected=round(corrected, _DIGITS),
        verdict=verdict,
        because=found.because,
    )


def _exceeds_index(statistic: float, corrected: float, limit: float, limits: Limits) -> bool:
    return statistic >= limit and corrected <= _PSI_SURE


def _exceeds_chance(statistic: float, corrected: float, limit: float, limits: Limits) -> bool:
    return corrected <= limit and statistic >= (limits.least or 0.0)


def _pair(reference: Population, current: Population) -> dict[str, tuple[Sample, Sample]]:
    names = [WHOLE, *sorted({*reference, *current} - {WHOLE})]
    return {name: (_find(reference, name), _find(current, name)) for name in names}


def _find(population: Population, name: str) -> Sample:
    if name in population:
        return population[name]
    return Sample(0) if _knows(population, name.partition("=")[0]) else population[WHOLE]


def _knows(population: Population, column: str) -> bool:
    return any(name.startswith(f"{column}=") for name in population)


def _tell_strangers(reference: Population, current: Population, spec: DriftSpec) -> Iterator[str]:
    for column in spec.slices:
        known = [_knows(side, column) for side in (reference, current)]
        if not any(known):
            yield f"no row on either side has {column}"
        elif not all(known):
            side = "current" if known[0] else "reference"
            yield f"no row of the {side} has {column}: its slices are compared with everything there"


def _tell(name: str, counts: tuple[int, int], tests: list[DriftTest], enough: list[str]) -> DriftSlice:
    verdicts = [test.verdict for test in tests if test.slice == name]
    verdict = min(verdicts, key=rank, default="ok") if name in enough else "too few"
    return DriftSlice(name=name, reference=counts[0], current=counts[1], verdict=verdict)


def _tell_bin(index: Stability) -> str:
    one, other = index.shares
    return f"{index.worst}: {one:.1%} -> {other:.1%}"


def _notes(tests: int, enough: list[str], slices: dict[str, tuple[int, int]], spec: DriftSpec) -> Iterator[str]:
    """What a reader of the verdict should know: slices left out, p-values that cannot get low enough."""
    few = len(slices) - len(enough)
    if few:
        yield f"{few} slices have fewer than {spec.min_rows} rows on a side and were not tested"
    resolution = tests / (1 + spec.permutations)
    permuted = [limits for test in ("vocabulary", "embedding") if not (limits := spec.find_limits(test)).off]
    if any(resolution > (limits.alarm or 0.0) for limits in permuted):
        yield (
            f"{tests} tests: with {spec.permutations} permutations one alone comes no lower than p {resolution:.3f}"
            " after correction; raise permutations, or take fewer slices"
        )
