"""Deduplication of a list of documents that is in memory: the survey over one batch."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from espalier.core.types import Document
from espalier.data.clean.outcome import Outcome, drop
from espalier.data.dedup.step import Deduplication, DedupSpec
from espalier.data.flow.batch import to_batch

__all__ = ["DedupSpec", "drop_duplicates"]


def drop_duplicates(documents: Sequence[Document], spec: DedupSpec) -> Outcome:
    """Counts `exact` and `near` duplicates."""
    batch = to_batch(document for document in documents if not document.dropped_because)
    survey = Deduplication(spec, Path())
    with tempfile.TemporaryDirectory() as work:
        (decision,) = survey.decide([survey.sketch(batch)], [batch], Path(work))
    outcome = survey.apply_decision(batch, decision)
    reasons = iter(decision.column("reason").to_pylist())
    out = []
    for document in documents:
        reason = None if document.dropped_because else next(reasons)
        out.append(drop(document, reason) if reason else document)
    return Outcome(out, outcome.counts)
