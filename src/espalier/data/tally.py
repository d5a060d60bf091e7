"""Figures of examples, counted shard by shard and added up: exact, and no larger for a larger corpus.

Knows example batches (`store.examples.SCHEMA`); writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from espalier.data.answers import MAX_VALUES, read_fields
from espalier.data.flow.batch import tag_column
from espalier.data.kernels.buffers import is_worth_compiling, view_texts
from espalier.data.manifest import Distribution

# So many fields' values are followed; an answer of free JSON could have any number of fields.
_MAX_FIELDS = 256
_MAX_LABELS = 1_000


@dataclass(slots=True)
class Tally:
    """`labels[field]` is None once a field has had more values than a label has."""

    examples: int = 0
    chars: Counter[int] = field(default_factory=Counter)  # of an example, all its texts
    words: Counter[int] = field(default_factory=Counter)
    tokens: Counter[int] = field(default_factory=Counter)  # empty unless examples were tokenised
    formats: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    groups: set[str] = field(default_factory=set)  # the keys of labels that found a document
    labels: dict[str, Counter[str] | None] = field(default_factory=dict)
    answers: int = 0
    tagged: Counter[str] | None = field(default_factory=Counter)  # the tag `label`; None once it has too many values

    def add(self, other: Tally) -> None:
        """Count another shard's figures in."""
        self.examples += other.examples
        self.answers += other.answers
        for mine, theirs in (
            (self.chars, other.chars),
            (self.words, other.words),
            (self.tokens, other.tokens),
        ):
            mine.update(theirs)
        self.formats.update(other.formats)
        self.languages.update(other.languages)
        self.groups |= other.groups
        self.add_tagged(other.tagged)
        for name, values in other.labels.items():
            self._add_values(name, values)

    def list_labels(self) -> dict[str, dict[str, int]]:
        """For each field that takes few values, how often each occurs."""
        found = {
            name: dict(sorted(values.items()))
            for name, values in sorted(self.labels.items())
            if values and 2 * len(values) <= self.answers
        }
        return found | ({"label": dict(sorted(self.tagged.items()))} if self.tagged else {})

    def add_tagged(self, values: Mapping[str, int] | None) -> None:
        """Count values of the tag `label`, which a classification sets."""
        if self.tagged is not None and values is not None:
            self.tagged.update(values)
        if values is None or (self.tagged is not None and len(self.tagged) > _MAX_LABELS):
            self.tagged = None

    def count_answer(self, answer: str) -> None:
        """Count the fields of one answer."""
        self.answers += 1
        for name, value in read_fields(answer).items():
            self._add_values(name, {value: 1})

    def _add_values(self, name: str, values: Mapping[str, int] | None) -> None:
        if name not in self.labels and len(self.labels) >= _MAX_FIELDS:
            return
        known = self.labels.setdefault(name, Counter())
        if known is None or values is None:
            self.labels[name] = None
            return
        known.update(values)
        if len(known) > MAX_VALUES:
            self.labels[name] = None

    def to_json(self) -> dict[str, Any]:
        """JSON values; the inverse of `from_json`."""
        return {
            "examples": self.examples,
            "answers": self.answers,
            "chars": sorted(self.chars.items()),
            "words": sorted(self.words.items()),
            "tokens": sorted(self.tokens.items()),
            "formats": dict(self.formats),
            "languages": dict(self.languages),
            "groups": sorted(self.groups),
            "labels": self.labels,
            "tagged": self.tagged,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Tally:
        """What `to_json` gave."""
        return cls(
            examples=value["examples"],
            answers=value["answers"],
            chars=Counter(dict(value["chars"])),
            words=Counter(dict(value["words"])),
            tokens=Counter(dict(value["tokens"])),
            formats=Counter(value["formats"]),
            languages=Counter(value["languages"]),
            groups=set(value["groups"]),
            labels={name: None if counts is None else Counter(counts) for name, counts in value["labels"].items()},
            tagged=None if value["tagged"] is None else Counter(value["tagged"]),
        )


def tally_examples(batch: pa.RecordBatch, *, keep_groups: bool) -> Tally:
    """The figures of one batch of examples; `keep_groups` for a task with labels, to know which were used."""
    texts = join_texts(batch)
    tally = Tally(examples=len(batch))
    tally.chars.update(pc.utf8_length(texts).to_pylist())
    tally.words.update(count_words(texts))
    tally.formats.update(tag_column(batch, "format").fill_null("").to_pylist())
    tally.languages.update(tag_column(batch, "language").drop_null().to_pylist())
    tally.add_tagged(Counter(tag_column(batch, "label").drop_null().to_pylist()))
    if keep_groups:
        tally.groups.update(tag_column(batch, "group").drop_null().to_pylist())
    messages = batch.column("messages")
    if len(messages.flatten()):
        for turns in messages.to_pylist():
            if turns:
                tally.count_answer(turns[-1]["content"])
    return tally


def join_texts(batch: pa.RecordBatch) -> pa.LargeStringArray:
    """All an example says, one text a row. (n,)"""
    if not any(len(batch.column(name).flatten()) for name in ("messages", "chosen")):
        return batch.column("text").cast(pa.large_string())
    joined = []
    for row in batch.select(["messages", "text", "chosen"]).to_pylist():
        before, after = ([turn["content"] for turn in row[name]] for name in ("messages", "chosen"))
        # A row without turns is its text, whatever rows stand beside it.
        joined.append("\n".join([*before, row["text"], *after]).strip() if before or after else row["text"])
    return pa.array(joined, pa.large_string())


def count_words(texts: pa.LargeStringArray) -> list[int]:
    """Words of each text, parted by white space. (n,)"""
    if not is_worth_compiling(texts):
        return [len(text.split()) for text in texts.to_pylist()]
    from espalier.data.kernels import lengths

    out = np.zeros(len(texts), np.int64)
    lengths.count_words(*view_texts(texts), out)
    counted: list[int] = out.tolist()
    return counted


def distribute_counts(counts: Mapping[int, int]) -> Distribution:
    """Nearest-rank quantiles of counted values; all zero for nothing."""
    ordered = sorted(counts.items()) or [(0, 1)]
    total = sum(count for _, count in ordered)

    def at(share: float) -> int:
        wanted = min(total - 1, int(share * total))
        for value, count in ordered:
            wanted -= count
            if wanted < 0:
                return value
        return ordered[-1][0]

    return Distribution(
        minimum=ordered[0][0],
        p5=at(0.05),
        median=at(0.5),
        p95=at(0.95),
        maximum=ordered[-1][0],
        total=sum(value * count for value, count in ordered),
    )
