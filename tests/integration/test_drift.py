"""Drift on public datasets: silent on a random half, loud on intents held out and on another task altogether."""

from __future__ import annotations

import csv
import gzip
import json
import random
from itertools import islice
from pathlib import Path

import pytest

from espalier.core.types import Example
from espalier.data.drift.measure import measure_drift
from espalier.data.drift.population import sample_population
from espalier.data.drift.prompts import read_prompts
from espalier.data.drift.report import DriftReport
from espalier.data.drift.spec import DriftSpec

DATA = Path(__file__).parents[3] / "shared" / "data"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data")


@pytest.fixture(scope="module")
def questions() -> list[Example]:
    with (DATA / "banking77" / "train.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [Example(str(n), text=row["text"], tags={"label": row["category"]}) for n, row in enumerate(rows)]


def compare(one: list[Example], other: list[Example], spec: DriftSpec | None = None) -> DriftReport:
    spec = spec or DriftSpec()
    return measure_drift(sample_population(one, spec), sample_population(other, spec), spec)


def test_halves_of_one_dataset_have_not_drifted(questions: list[Example]) -> None:
    """Ten ways to halve it: with Holm's correction at 0.05 a warning is rare, an alarm rarer."""
    verdicts = []
    for seed in range(10):
        shuffled = random.Random(seed).sample(questions, len(questions))
        halves = shuffled[::2], shuffled[1::2]
        verdicts.append(compare(*halves, DriftSpec(seed=seed, permutations=1_999)).verdict)
    assert verdicts.count("alarm") == 0 and verdicts.count("warn") <= 2


def test_intents_that_were_held_out_alarm_in_words_labels_and_wording(questions: list[Example]) -> None:
    labels = sorted({row.tags["label"] for row in questions})
    held_out = set(labels[:15])
    one = [row for row in questions if row.tags["label"] not in held_out]
    other = [row for row in questions if row.tags["label"] in held_out]
    loud = {test.test for test in compare(one, other).alarms()}
    assert {"psi:label", "vocabulary", "embedding"} <= loud


def test_intents_that_come_in_are_seen_without_their_labels(questions: list[Example]) -> None:
    """A third of the live prompts are of intents nobody trained on."""
    labels = sorted({row.tags["label"] for row in questions})
    new = {*labels[:15]}
    known = [Example(row.id, text=row.text) for row in questions if row.tags["label"] not in new]
    unknown = [Example(row.id, text=row.text) for row in questions if row.tags["label"] in new]
    live = [*known[::12], *unknown[::6]]
    trained = [row for n, row in enumerate(known) if n % 12]
    loud = {test.test for test in compare(trained, live).alarms()}
    assert {"vocabulary", "embedding"} <= loud


def test_another_task_alarms_in_everything(tmp_path: Path) -> None:
    with gzip.open(DATA / "gsm8k" / "train.jsonl.gz", "rt", encoding="utf-8") as stream:
        trained = [Example(str(n), text=json.loads(line)["question"]) for n, line in enumerate(islice(stream, 2_000))]
    e2e = DATA / "e2e-nlg" / "devset.csv.gz"
    live = list(islice(read_prompts(e2e, "mr"), 2_000))
    report = compare(trained, live)
    assert {test.test for test in report.alarms()} == {
        *("psi:chars", "psi:words", "ks:chars", "ks:words", "vocabulary", "embedding")
    }
