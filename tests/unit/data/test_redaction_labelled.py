"""Recall and precision on Presidio's labelled sentences, which are none of ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from espalier.data.pii.report import find_personal
from espalier.data.pii.rules import KINDS
from espalier.testing.labelled import Figures, compare

SHARED = Path(__file__).parents[4] / "shared" / "data" / "presidio-pii" / "generated_small.json"
LABELS = {
    "EMAIL_ADDRESS": "EMAIL",
    "CREDIT_CARD": "CARD",
    "US_SSN": "SSN",
    "IP_ADDRESS": "IP",
    "PHONE_NUMBER": "PHONE",
    "DOMAIN_NAME": "URL",
    "US_DRIVER_LICENSE": "DOCUMENT",
}


@pytest.mark.skipif(not SHARED.exists(), reason="the labelled corpus is not on this machine")
def test_every_structured_kind_of_a_labelled_corpus_is_found_and_nothing_else() -> None:
    rows = json.loads(SHARED.read_text())
    table = find_personal([row["full_text"] for row in rows], KINDS).to_pylist()
    pairs = [
        (
            [(span["start_position"], span["end_position"], span["entity_type"]) for span in row["spans"]],
            [(each["start"], each["end"], each["kind"]) for each in table if each["document"] == number],
        )
        for number, row in enumerate(rows)
    ]
    figures = compare(pairs, LABELS, also={"BIRTH_DATE": "DATE_TIME"})
    labels = {"EMAIL": 2, "CARD": 10, "SSN": 3, "IP": 2, "PHONE": 10, "URL": 3, "DOCUMENT": 1}
    assert {kind: each.labels for kind, each in figures.items() if each.labels} == labels
    for kind, each in figures.items():
        assert each.found == each.covered == each.labels, kind
        assert each.right == each.findings, kind


def test_figures_count_what_is_found_covered_and_right() -> None:
    labels = [(0, 4, "MAIL"), (10, 14, "CALL"), (20, 24, "DAY")]
    findings = [(0, 4, "EMAIL"), (12, 16, "PHONE"), (21, 22, "DATE"), (30, 34, "EMAIL")]
    figures = compare([(labels, findings)], {"MAIL": "EMAIL", "CALL": "PHONE"}, also={"DATE": "DAY"})
    assert figures == {
        "EMAIL": Figures(labels=1, found=1, covered=1, findings=2, right=1),
        "PHONE": Figures(labels=1, found=1, covered=0, findings=1, right=1),
        "DATE": Figures(findings=1, right=1),
    }
    assert figures["EMAIL"].recall == 1.0 and figures["EMAIL"].precision == 0.5 and figures["DATE"].recall is None
