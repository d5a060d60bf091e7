"""A cleaning step somebody wrote in Python: one function of a file, run apart from us with limits.

    # my_steps.py
    def clean(row: dict) -> str | dict | None:
        if "DRAFT" in row["text"]:
            return {"drop": "a draft"}        # or None: dropped without a reason of its own
        return row["text"].replace("ACME", "the company")

A row has `id`, `text`, `tags`, `spans`, `row` (a table's row as its JSON text), `messages`, `chosen`, `rejected`. What
comes back is a text, or a dict of what changes (`text`, `tags`, `messages`, `chosen`, `rejected`, or `drop` with a
reason).
With `takes: batch` the function has a pyarrow.RecordBatch of the same columns and returns one with all or fewer rows.

Legend: n = rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.types import Spec
from espalier.data.clean.rewriting import say_changes, say_drops
from espalier.data.clean.sandbox import Failure, Task, run_batch, run_rows
from espalier.data.flow.batch import CONVERSATIONS, SCHEMA
from espalier.data.flow.outcome import Outcome
from espalier.data.flow.step import CleanStep

MAX_DEATHS = 20  # of the process, in one batch: each costs its start again


class PythonSpec(Spec):
    """Run a Python function of yours over every document."""

    step: Literal["python"] = "python"
    file: str = Field(min_length=1, description="the Python file, relative to the source folder; it imports no sibling")
    function: str = Field("clean", pattern=r"^[A-Za-z_]\w*$", description="the function's name in it")
    takes: Literal["row", "batch"] = Field(
        "row", description="row: a dict for each document; batch: a pyarrow.RecordBatch of many"
    )
    arguments: dict[str, str | int | float | bool | None] = Field(
        {}, description="keyword arguments for each call, beside the row or batch"
    )
    limit_s: float = Field(10, gt=0, description="seconds for one row, or one batch; then the process is ended")
    limit_mb: int = Field(1024, ge=16, description="memory it may take over what Python itself needs, in MiB")
    on_error: Literal["fail", "drop"] = Field(
        "fail", description="an exception, a wrong answer, a crash, or a limit: stop, or drop the row with the reason"
    )
    isolation: Literal["wanted", "required"] = Field(
        "wanted", description="required: refuse to run where the system cannot take the network away from it"
    )


@dataclass(frozen=True, slots=True)
class PythonStep:
    """The prepared step. Drops with the function's own reason ("clean: a draft"), or "clean failed: FILE:LINE: ...".

    Counts the `changed` documents.
    """

    spec: PythonSpec
    task: Task

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        if len(batch) == 0:
            return Outcome()
        return self._apply_batch(batch) if self.spec.takes == "batch" else self._apply_rows(batch)

    def _apply_rows(self, batch: pa.RecordBatch) -> Outcome:
        name = self.spec.function
        answers: list[dict[str, Any]] = []
        reasons: list[str | None] = []
        for number, answer in enumerate(run_rows(self.task, batch, MAX_DEATHS)):
            if isinstance(answer, Failure):
                self._refuse(answer, batch.column("id")[number].as_py())
                answers.append({})
                reasons.append(f"{name} {answer.kind}: {answer}")
            else:
                answers.append(answer)
                reasons.append(f"{name}: {answer['drop']}" if "drop" in answer else None)
        outcome = say_changes(batch, _change(batch, "text", answers))
        outcome.reasons = say_drops(reasons).reasons
        outcome.tags = _columns_of_tags(answers)
        changed = {column for answer in answers for column in answer} & set(CONVERSATIONS)
        outcome.conversations = {column: _change(batch, column, answers) for column in sorted(changed)}
        return outcome

    def _apply_batch(self, batch: pa.RecordBatch) -> Outcome:
        name = self.spec.function
        made = run_batch(self.task, batch)
        if isinstance(made, Failure):
            self._refuse(made, f"{batch.column('id')[0].as_py()} and {len(batch) - 1} more")
            return say_drops([f"{name} {made.kind}: {made}"] * len(batch))
        place = {identifier: row for row, identifier in enumerate(batch.column("id").to_pylist())}
        parents = pa.array([place[identifier] for identifier in made.column("id").to_pylist()], pa.int32())
        kept = set(parents.to_pylist())
        outcome = say_drops([None if row in kept else f"{name}: left out" for row in range(len(batch))])
        changed = pc.not_equal(made.column("text"), batch.column("text").take(parents))
        outcome.batch, outcome.parents = made, parents
        outcome.counts = {"changed": pc.sum(changed, min_count=0).as_py()}
        return outcome

    def _refuse(self, failure: Failure, document: str) -> None:
        if self.spec.on_error == "fail":
            message = f"{self.spec.function} {failure.kind} on document {document}: {failure.message}"
            hint = f"mend {self.spec.file}, or set `on_error: drop`"
            raise InvalidInput(message, where=failure.where, hint=hint)


def _change(batch: pa.RecordBatch, name: str, answers: list[dict[str, Any]]) -> pa.Array:
    """A column (n,) with the rows that answers speak of replaced."""
    if not any(name in answer for answer in answers):
        return batch.column(name)
    old = batch.column(name).to_pylist()
    values = [answer.get(name, value) for answer, value in zip(answers, old, strict=True)]
    return pa.array(values, SCHEMA.field(name).type)


def _columns_of_tags(answers: list[dict[str, Any]]) -> dict[str, pa.StringArray]:
    rows = [dict(answer.get("tags", ())) for answer in answers]
    names = sorted({name for row in rows for name in row})
    return {name: pa.array([row.get(name) for row in rows], pa.string()) for name in names}


def prepare(spec: PythonSpec, folder: Path) -> PythonStep:
    """Read the file in `folder`, and do not run it yet. Raises NotFound, and InvalidInput for one that is no UTF-8."""
    path = folder / spec.file
    try:
        source = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise NotFound(f"no Python file {path}", hint="`file` is relative to the source folder") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"not UTF-8: {error.reason} at byte {error.start}", where=str(path)) from None
    limits = {"limit_s": spec.limit_s, "limit_bytes": spec.limit_mb << 20, "isolation": spec.isolation}
    task = Task(source, path.name, spec.function, spec.takes, spec.arguments, **limits)  # type: ignore[arg-type]
    return PythonStep(spec, task)


STEP = CleanStep("python", 1, PythonSpec, prepare, files=("file",))
