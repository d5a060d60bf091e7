"""`DatasetManifest`: everything a dataset version says about itself, as `manifest.json` in its folder.

Holds no time, no path of a machine and no personal data, so the same sources and recipe give the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from espalier.core.errors import NotFound
from espalier.core.faults import refuse
from espalier.core.ids import canonical_json
from espalier.core.types import Spec
from espalier.data.readers.source import SkippedFile

FILE = "manifest.json"
LAYOUT = 1  # raised when a reader of the folder must change


class SourceEntry(Spec):
    """One file that was read. `documents` counts what it gave, dropped ones included."""

    uri: str
    sha256: str
    documents: int


class StepReport(Spec):
    """What one step did. `counts` are the step's own figures: duplicates by sort, redactions by kind ..."""

    step: str  # "dedup@1"
    parameters: dict[str, Any]
    documents_in: int
    documents_out: int
    drops: dict[str, int] = {}
    counts: dict[str, int] = {}


class Distribution(Spec):
    """Of a quantity over the examples."""

    minimum: int
    p5: int
    median: int
    p95: int
    maximum: int
    total: int


class DatasetManifest(Spec):
    """One dataset version."""

    layout: int = LAYOUT
    name: str
    description: str = ""
    licence: str = ""
    licences: dict[str, dict[str, str]] = {}  # folder of sources -> what a file beside them says of their use
    examples: int
    splits: dict[str, int]
    documents_read: int
    documents_kept: int
    drops: dict[str, int]  # by reason, over all steps
    redactions: dict[str, int]  # by kind
    labels: dict[str, dict[str, int]]  # field of the answer -> value -> examples
    labels_unused: int = 0
    formats: dict[str, int]  # kept documents by format
    languages: dict[str, int] = {}  # by the tag a `language` step sets
    strata: dict[str, dict[str, int]] = {}  # stratum -> split -> examples
    chars: Distribution  # of an example, all its messages
    words: Distribution
    tokens: Distribution | None = None  # where the recipe names a tokenizer
    steps: tuple[StepReport, ...]
    sources: tuple[SourceEntry, ...]
    skipped: tuple[SkippedFile, ...]
    task: dict[str, Any]
    split: dict[str, Any]

    def to_bytes(self) -> bytes:
        """Canonical JSON with a line end."""
        return canonical_json(self.model_dump(mode="json")) + b"\n"


def read_manifest(folder: Path) -> DatasetManifest:
    """The manifest in a dataset's folder; raises NotFound without one, InvalidInput for one of another layout."""
    path = folder / FILE
    if not path.is_file():
        raise NotFound(f"no dataset in {folder}", hint="a dataset's folder holds manifest.json and data/")
    try:
        return DatasetManifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        what, hint = f"not a manifest of layout {LAYOUT}", "build the dataset again with this version"
        raise refuse(error, None, what=what, where=str(path), hint=hint) from None


def name_reason(reason: str) -> str:
    """A drop reason without its particulars: "near duplicate of 3f.1 (a.pdf)" is a "near duplicate"."""
    return re.split(r": | of ", reason, maxsplit=1)[0]


def name_skip(reason: str) -> str:
    """Why a file gave nothing, without its particulars: "same bytes as a.pdf" is "same bytes as another"."""
    return re.sub(r"(?<=^same bytes as ).*", "another", name_reason(reason), flags=re.DOTALL)


def distribute(values: Iterable[int]) -> Distribution:
    """Nearest-rank quantiles; all zero for nothing."""
    ordered = sorted(values) or [0]

    def at(share: float) -> int:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return Distribution(
        minimum=ordered[0], p5=at(0.05), median=at(0.5), p95=at(0.95), maximum=ordered[-1], total=sum(ordered)
    )
