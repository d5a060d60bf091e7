"""What was made of rows, gathered column by column into the outcome of a batch. Knows batches; knows no task.

Legend: m = entries, each a part of an input row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from espalier.core.types import Message
from espalier.data.flow.batch import CONVERSATIONS, SCHEMA, TAGS
from espalier.data.flow.outcome import Outcome
from espalier.data.formats.decoded import Decoded
from espalier.data.tasks.origins import Origin

_MESSAGES = SCHEMA.field("messages").type
_NOTHING = (Decoded(),)


class Columns:
    """What rows say, column by column: a batch of millions of objects would keep the garbage collector busy.

    Of m entries each is a part of an input row; one that gave nothing has an empty entry, so that a batch whose rows
    gave at most one each is changed in place.
    """

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._ids: list[str] = []
        self._texts: list[str] = []
        self._tags: list[dict[str, str]] = []
        self._origin_tags: list[dict[str, str]] = []
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._kept: list[bool] = []
        self._turns = {name: Turns() for name in CONVERSATIONS}
        self._counts: Counter[str] = Counter()
        self._in_place = True

    def add(self, parent: int, origin: Origin, several: Sequence[Decoded]) -> None:
        """What input row `parent` gave; nothing, one or more."""
        parted = len(several) > 1 or any(each.end for each in several)
        self._in_place &= not parted
        for number, each in enumerate(several or _NOTHING, 1):
            self._parents.append(parent)
            self._ids.append(f"{origin.id}.{number}" if parted else origin.id)
            self._texts.append(each.whole_text())
            self._tags.append(each.tags)
            self._origin_tags.append(origin.tags)
            self._starts.append(0 if origin.row else each.start)
            self._ends.append(0 if origin.row else each.end)
            self._kept.append(bool(several))
            for name, turns in self._turns.items():
                turns.add(getattr(each, name))
            if each.form:
                self._counts[each.form] += 1

    def to_outcome(self, spans: pa.ListArray) -> Outcome:
        """In place, or new rows with ids `{id}.{k}`, k from 1, their spans narrowed to the part.

        spans: of the input rows.
        """
        outcome = self._change() if self._in_place else self._multiply(spans)
        outcome.counts = dict(sorted(self._counts.items()))
        return outcome

    def _change(self) -> Outcome:
        names = sorted({name for tags in self._tags for name in tags})
        return Outcome(
            texts=pa.array(self._texts, pa.large_string()),
            rows=pa.array([""] * len(self._texts), pa.large_string()),
            tags={name: pa.array([tags.get(name) for tags in self._tags], pa.string()) for name in names},
            conversations={name: turns.to_array() for name, turns in self._turns.items() if len(turns)},
        )

    def _multiply(self, spans: pa.ListArray) -> Outcome:
        tags = [sorted({**old, **new}.items()) for old, new in zip(self._origin_tags, self._tags, strict=True)]
        columns = {
            "id": pa.array(self._ids, pa.string()),
            "text": pa.array(self._texts, pa.large_string()),
            "spans": pa.array(self._narrow(spans), SCHEMA.field("spans").type),
            "tags": pa.array(tags, TAGS),
            "row": pa.array([""] * len(self._ids), pa.large_string()),
            **{name: turns.to_array() for name, turns in self._turns.items()},
        }
        kept = pa.array(self._kept, pa.bool_())
        made = pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)
        return Outcome(batch=made.filter(kept), parents=pa.array(self._parents, pa.int32()).filter(kept))

    def _narrow(self, spans: pa.ListArray) -> Iterator[list[dict[str, Any]]]:
        """The spans of each entry; of a part of a document on one page, only its stretch."""
        for parent, start, end in zip(self._parents, self._starts, self._ends, strict=True):
            whole = spans[parent].as_py()
            if end and len(whole) == 1:
                (span,) = whole
                yield [{**span, "start": span["start"] + start, "end": span["start"] + end}]
            else:
                yield whole


class Turns:
    """Conversations as a column of lists of turns, gathered one by one."""

    def __init__(self) -> None:
        self._offsets = [0]
        self._roles: list[str] = []
        self._contents: list[str] = []
        self._weights: list[float | None] = []

    def __len__(self) -> int:
        return len(self._roles)

    def add(self, conversation: Iterable[Message]) -> None:
        """One conversation, which may be empty."""
        for turn in conversation:
            self._roles.append(turn.role)
            self._contents.append(turn.content)
            self._weights.append(turn.weight)
        self._offsets.append(len(self._roles))

    def to_array(self) -> pa.ListArray:
        """The column."""
        made = pa.StructArray.from_arrays(
            [
                pa.array(self._roles, pa.string()),
                pa.array(self._contents, pa.large_string()),
                pa.array(self._weights, pa.float64()),
            ],
            fields=list(_MESSAGES.value_type),
        )
        return pa.ListArray.from_arrays(pa.array(self._offsets, pa.int32()), made, type=_MESSAGES)


def to_turns(conversations: Iterable[Sequence[Message]]) -> pa.ListArray:
    """Conversations as a column of lists of turns."""
    turns = Turns()
    for conversation in conversations:
        turns.add(conversation)
    return turns.to_array()
