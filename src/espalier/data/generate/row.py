"""A row that a model made, and everything about where it came from: kept as tags on the example, and whole in a file.

Rows that were refused carry the same, so that nothing asked for vanishes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from espalier.core.ids import canonical_json, digest_of
from espalier.core.types import Example, Message, SamplingSpec
from espalier.data.generate.templates import PromptVersion

PREFIX = "generate."
CRITIQUE = "critique"  # the method that makes nothing
_ID_CHARS = 20
_ALWAYS_TOLD = ("max_tokens", "temperature", "top_p", "seed", "stop")


@dataclass(frozen=True, slots=True)
class Origin:
    """How a row was asked for. `answer` is the sha256 of the raw answer, empty where none came."""

    method: str
    parents: tuple[str, ...]  # ids of the examples shown to the model
    prompt: PromptVersion
    model: str
    sampling: SamplingSpec
    answer: str = ""
    mended: bool = False  # the answer is the model's second attempt

    def tags(self) -> dict[str, str]:
        """What every kept row says of itself."""
        told = {
            "method": self.method,
            "parents": ",".join(self.parents),
            "prompt": self.prompt.ref,
            "prompt_digest": self.prompt.digest,
            "model": self.model,
            "sampling": canonical_json(_tell_sampling(self.sampling)).decode(),
            "answer": self.answer,
            "mended": "yes" if self.mended else "",
        }
        return {f"{PREFIX}{name}": value for name, value in told.items() if value}


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge said of a row."""

    score: int
    reason: str
    prompt: PromptVersion
    model: str
    answer: str

    def tags(self) -> dict[str, str]:
        told = {
            "score": str(self.score),
            "reason": self.reason,
            "prompt": self.prompt.ref,
            "prompt_digest": self.prompt.digest,
            "model": self.model,
            "answer": self.answer,
        }
        return {f"judge.{name}": value for name, value in told.items()}


@dataclass(slots=True)
class Row:
    """One row: the example (None when no usable answer came), why it is refused (empty = kept), what a judge said."""

    origin: Origin
    example: Example | None = None
    refused_because: str = ""
    judgement: Judgement | None = None
    source: str = ""  # the text it was made from, for a judge to compare with
    details: dict[str, str] = field(default_factory=dict)  # of the method: the quotation of a question ...

    @property
    def kept(self) -> bool:
        return self.example is not None and not self.refused_because

    def to_json(self) -> dict[str, Any]:
        """The row's line in provenance.jsonl."""
        origin = self.origin
        return {
            "id": self.example.id if self.example else "",
            "method": origin.method,
            "parents": list(origin.parents),
            "prompt": origin.prompt.ref,
            "prompt_digest": origin.prompt.digest,
            "model": origin.model,
            "sampling": _tell_sampling(origin.sampling),
            "answer": origin.answer,
            "mended": origin.mended,
            "verdict": "kept" if self.kept else "refused",
            "reason": self.refused_because,
            "judge": self.judgement.tags() if self.judgement else {},
        }


def kept_examples(rows: Iterable[Row]) -> list[Example]:
    """The examples of the kept rows, their provenance as tags."""
    return [_finish(row, row.example) for row in rows if row.example is not None and row.kept]


def make_example(parent: Example, method: str, messages: list[Message], *, number: int) -> Example:
    """A row made from `parent`, in its split, of its documents, with its tags; its id follows from what it says."""
    said = [[message.role, message.content] for message in messages]
    id = digest_of([method, parent.id, number, said])[:_ID_CHARS]
    return Example(
        id=f"{method[0]}-{id}",
        messages=messages,
        split=parent.split,
        documents=list(parent.documents),
        tags=inherit_tags(parent),
    )


def inherit_tags(parent: Example) -> dict[str, str]:
    """The parent's own tags; those that tell how it was itself made stay with it."""
    return {name: value for name, value in parent.tags.items() if not name.startswith((PREFIX, "judge."))}


def _finish(row: Row, example: Example) -> Example:
    told = row.judgement.tags() if row.judgement else {}
    if row.origin.method == CRITIQUE:  # it was there before: what it says of its making stays
        return replace(example, tags={**example.tags, **told})
    tags = {**example.tags, **row.origin.tags(), f"{PREFIX}verdict": "kept", **row.details, **told}
    return replace(example, tags=tags)


def describe_example(example: Example) -> str:
    """An example as a judge reads it."""
    if example.text:
        return example.text
    if example.chosen:
        better, worse = _converse(example.chosen), _converse(example.rejected)
        return "\n\n".join(part for part in (_converse(example.messages), f"Better:\n{better}", f"Worse:\n{worse}"))
    return _converse(example.messages)


def _converse(messages: Sequence[Message]) -> str:
    return "\n\n".join(f"[{message.role}]\n{message.content}" for message in messages)


def _tell_sampling(sampling: SamplingSpec) -> dict[str, Any]:
    """What every recipe says, and what this one says besides."""
    said = sampling.model_dump(exclude_none=True)
    return {
        name: value
        for name, value in said.items()
        if name in _ALWAYS_TOLD or value != SamplingSpec.model_fields[name].default
    }
