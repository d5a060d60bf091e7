"""Keeps the first of texts that are the same or nearly so; the drop reason names the one that was kept.

"First" is by position, and positions follow the sorted source uris, so the outcome does not depend on the file system.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from espalier.core.types import Document, Spec
from espalier.data.clean.outcome import Outcome, drop
from espalier.data.nearness import Shingles, candidates, hash_text, jaccard, shingle


class DedupSpec(Spec):
    """Drop exact and near duplicates."""

    step: Literal["dedup"] = "dedup"
    near: float = Field(0.8, gt=0, le=1, description="Jaccard index from which two texts count as one; 1 = exact only")
    shingle_words: int = Field(3, ge=1, le=20, description="words a shingle is made of")


def drop_duplicates(documents: Sequence[Document], spec: DedupSpec) -> Outcome:
    """Counts `exact` and `near` duplicates."""
    exact = _drop_exact(documents)
    near = exact if spec.near == 1 else _drop_near(exact, spec)
    return Outcome(near, {"exact": _count_new(documents, exact), "near": _count_new(exact, near)})


def _drop_exact(documents: Sequence[Document]) -> list[Document]:
    kept: dict[int, Document] = {}
    out = []
    for document in documents:
        if not document.dropped_because:
            first = kept.setdefault(hash_text(document.text), document)
            if first is not document:
                document = drop(document, f"exact duplicate of {first.id} ({first.span.uri})")
        out.append(document)
    return out


def _drop_near(documents: Sequence[Document], spec: DedupSpec) -> list[Document]:
    empty: Shingles = frozenset()
    texts = [empty if doc.dropped_because else shingle(doc.text, spec.shingle_words) for doc in documents]
    out: list[Document] = []
    for document, shingles, earlier in zip(documents, texts, candidates(texts, spec.near), strict=True):
        for position in earlier:
            if out[position].dropped_because:
                continue
            alike = jaccard(shingles, texts[position])
            if alike >= spec.near:
                first = out[position]
                document = drop(document, f"near duplicate of {first.id} ({first.span.uri}), Jaccard {alike:.2f}")
                break
        out.append(document)
    return out


def _count_new(before: Sequence[Document], after: Sequence[Document]) -> int:
    return sum(bool(new.dropped_because) and not old.dropped_because for old, new in zip(before, after, strict=True))
