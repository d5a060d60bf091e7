"""The cleaning steps a dataset recipe may name, their order by default, and how each is prepared and run.

A list of steps is the pipeline. Each has a name, a version (raised when its outcome changes) and typed parameters;
the manifest records all three.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from espalier.core.types import Document
from espalier.data.clean.boilerplate import BoilerplateSpec, peel_boilerplate
from espalier.data.clean.length import LengthSpec, check_length
from espalier.data.clean.normalise import NormaliseSpec, normalise
from espalier.data.clean.outcome import Outcome
from espalier.data.clean.replies import RepliesSpec, cut_replies
from espalier.data.clean.wrap import UnwrapSpec, unwrap
from espalier.data.dedup.documents import DedupSpec, drop_duplicates
from espalier.data.pii.redact import RedactSpec, load_redactor, redact_documents

StepSpec = Annotated[
    NormaliseSpec | RepliesSpec | BoilerplateSpec | UnwrapSpec | LengthSpec | DedupSpec | RedactSpec,
    Field(discriminator="step"),
]
# Redaction comes before deduplication: copies that differ in a signature's name are found, and no drop reason can
# hold a name.
DEFAULT_STEPS: tuple[StepSpec, ...] = (
    NormaliseSpec(),
    RepliesSpec(),
    BoilerplateSpec(),
    UnwrapSpec(),
    RedactSpec(),
    LengthSpec(),
    DedupSpec(),
)
VERSIONS = {
    "normalise": 1,
    "replies": 1,
    "boilerplate": 1,
    "unwrap": 1,
    "redact": 1,
    "length": 1,
    "dedup": 1,
}


@dataclass(frozen=True, slots=True)
class CleanStep:
    """A prepared step. `rewrite` is what it also does to answers and imported messages, else left as they are."""

    spec: StepSpec
    apply: Callable[[Sequence[Document]], Outcome]
    rewrite: Callable[[str], str] | None = None

    @property
    def id(self) -> str:
        return f"{self.spec.step}@{VERSIONS[self.spec.step]}"


def prepare_step(spec: StepSpec, root: Path) -> CleanStep:
    """Make a step ready; files it names are looked for under `root`. Raises NotFound or InvalidInput for those."""
    match spec:
        case NormaliseSpec():
            return CleanStep(spec, lambda documents: normalise(documents, spec))
        case RepliesSpec():
            return CleanStep(spec, lambda documents: cut_replies(documents, spec))
        case BoilerplateSpec():
            return CleanStep(spec, lambda documents: peel_boilerplate(documents, spec))
        case UnwrapSpec():
            return CleanStep(spec, lambda documents: unwrap(documents, spec))
        case LengthSpec():
            return CleanStep(spec, lambda documents: check_length(documents, spec))
        case DedupSpec():
            return CleanStep(spec, lambda documents: drop_duplicates(documents, spec))
        case RedactSpec():
            redactor = load_redactor(spec, root)
            return CleanStep(spec, lambda documents: redact_documents(documents, redactor), redactor.redact)
