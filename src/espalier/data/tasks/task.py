"""What a task is: two pure functions over batches, one before cleaning and one after it; and how one is made ready.

Adding one is a file with a spec, whose field `kind` names it, and a `TaskKind`, under an entry point in the group
`espalier.tasks`. Tasks know no engine, no store and no files but those their spec names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from espalier.core.plugins import load_plugin
from espalier.core.types import Spec
from espalier.data.flow.outcome import Outcome

GROUP = "espalier.tasks"
# The cleaning steps that rewrite text, one after another.
Rewrite = Callable[[pa.LargeStringArray], pa.LargeStringArray]


class Task(Protocol):
    """A prepared task. Pure: the same batch gives the same outcome, whatever ran before.

    needs_rows: whether readers of tables must fill the column `row`.
    label_count: how many labels its files hold; 0 where it has none.
    """

    needs_rows: bool
    label_count: int

    def parse(self, batch: pa.RecordBatch) -> Outcome:
        """What was read -> texts, conversations and tags, for cleaning to see. Rows that cannot be used are dropped.

        Reasons: "unreadable: chats.jsonl:3: ...", "nothing in it: ...", "no key: ...", "no label: ...".
        """
        ...

    def make_examples(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """What cleaning left -> one example a row, in order, of `store.examples.SCHEMA`; all in the split train."""
        ...


@dataclass(frozen=True, slots=True)
class TaskKind:
    """A declared kind of task. `prepare(spec, folder, rewrite)` makes it ready; paths in the spec start at `folder`.

    `files` lists the spec's fields that name files; their content is part of the task's key.
    """

    name: str
    version: int  # raised whenever an outcome changes
    spec: type[Spec]
    prepare: Callable[[Any, Path, Rewrite | None], Task]
    files: tuple[str, ...] = ()


def prepare_task(spec: Any, folder: Path, *, rewrite: Rewrite | None = None) -> Task:
    """The task of a spec, ready to run; files it names are looked for under `folder`.

    rewrite: what cleaning does to texts, so that a label's key is never shown where cleaning would redact it.
    Raises NotFound or InvalidInput for what the spec names.
    """
    return find_kind(spec.kind).prepare(spec, folder, rewrite)


def task_files(spec: Any) -> tuple[str, ...]:
    """The files a task's spec names."""
    named = (getattr(spec, name) for name in find_kind(spec.kind).files)
    return tuple(name for name in named if isinstance(name, str) and name)


def task_id(spec: Any) -> str:
    """Kind and version, as the manifest records it: "chat@1"."""
    kind = find_kind(spec.kind)
    return f"{kind.name}@{kind.version}"


def find_kind(name: str) -> TaskKind:
    """The declared kind of that name. Raises NotFound, MissingExtra."""
    found: TaskKind = load_plugin(GROUP, name)
    return found
