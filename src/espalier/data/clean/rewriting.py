"""The shapes most steps share: a function of texts over the batch's text column, and drops. Knows no single step.

Legend: n = rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from espalier.data.flow.batch import tag_column
from espalier.data.flow.outcome import Outcome, rewrite_conversations

Rewrite = Callable[[pa.LargeStringArray], pa.LargeStringArray]


@dataclass(frozen=True, slots=True)
class TextStep:
    """Every document's text through `texts`; with `rewrite` also the messages, and answers, of conversations.

    Counts the `changed` documents.
    """

    texts: Rewrite
    rewrite: Rewrite | None = None

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        outcome = say_changes(batch, self.texts(batch.column("text")))
        if self.rewrite is not None:
            outcome.conversations = rewrite_conversations(batch, self.rewrite)
        return outcome


@dataclass(frozen=True, slots=True)
class FormatStep:
    """The text of documents of some formats, one by one, through a function of one text. Counts the `changed` ones."""

    formats: Sequence[str]
    rewrite_text: Callable[[str], str]

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        mask = pc.fill_null(pc.is_in(tag_column(batch, "format"), pa.array(self.formats, pa.string())), False)
        texts = batch.column("text")
        rewritten = pa.array(map(self.rewrite_text, texts.filter(mask).to_pylist()), pa.large_string())
        return say_changes(batch, pc.replace_with_mask(texts, mask, rewritten))


def say_changes(batch: pa.RecordBatch, texts: pa.LargeStringArray) -> Outcome:
    """An outcome with the new texts (n,), or none where no row changed; counts the `changed` rows."""
    old = batch.column("text")
    if texts is old or texts.equals(old):
        return Outcome(counts={"changed": 0})
    return Outcome(texts=texts, counts={"changed": pc.sum(pc.not_equal(old, texts)).as_py()})


def say_drops(reasons: Sequence[str | None]) -> Outcome:
    """An outcome that drops the rows with a reason (n,); an empty one where none has."""
    return Outcome(reasons=pa.array(reasons, pa.string())) if any(reasons) else Outcome()
