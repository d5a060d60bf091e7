"""`Draft`: a dataset version while it is being made. Holds what the build hands on; decides nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

from espalier.core.types import Document, Example, Message
from espalier.data.manifest import StepReport
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
    messages: dict[str, list[Message]] = field(default_factory=dict)  # document id -> imported conversation
    labels: Labels | None = None
    reports: list[StepReport] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)  # one for each kept document, in order
    strata: list[str] = field(default_factory=list)

    @property
    def kept(self) -> list[Document]:
        return [document for document in self.documents if not document.dropped_because]
