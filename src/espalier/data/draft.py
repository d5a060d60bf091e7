"""`Draft`: a dataset version while it is being made. Holds what the build hands on; decides nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from espalier.core.types import Document, Example, Message
from espalier.data.clean.outcome import Outcome
from espalier.data.manifest import StepReport, count_reasons
from espalier.data.readers.source import SkippedFile, SourceFile
from espalier.data.spec import DataSpec
from espalier.data.tasks.extraction import Labels


@dataclass(slots=True)
class Draft:
    """A dataset version while it is being made. `documents` keeps dropped ones, in the order they were read."""

    spec: DataSpec
    sources: list[SourceFile]
    skipped: list[SkippedFile]
    documents: list[Document]
    dropped_at: dict[str, str] = field(default_factory=dict)  # document id -> step
    keys: dict[str, str] = field(default_factory=dict)  # document id -> key of its label
    answers: dict[str, str] = field(default_factory=dict)  # document id -> redacted record
    groups: dict[str, str] = field(default_factory=dict)  # document id -> what it must not be parted from
    messages: dict[str, list[Message]] = field(default_factory=dict)  # document id -> imported conversation
    labels: Labels | None = None
    reports: list[StepReport] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)  # one for each kept document, in order
    strata: list[str] = field(default_factory=list)

    @property
    def kept(self) -> list[Document]:
        return [document for document in self.documents if not document.dropped_because]

    def advance(self, step: str, parameters: dict[str, Any], outcome: Outcome) -> StepReport:
        """Take over what a step made of the documents, and note what it did."""
        before, self.documents = self.documents, outcome.documents
        fresh = [
            new
            for old, new in zip(before, self.documents, strict=True)
            if new.dropped_because and not old.dropped_because
        ]
        self.dropped_at.update((document.id, step) for document in fresh)
        kept = len(self.kept)
        report = StepReport(
            step=step,
            parameters=parameters,
            documents_in=kept + len(fresh),
            documents_out=kept,
            drops=count_reasons(fresh),
            counts=outcome.counts,
        )
        self.reports.append(report)
        return report
