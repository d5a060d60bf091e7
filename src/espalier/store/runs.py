"""Runs and their event logs: what was executed, with what, and everything it said while it ran.

A run's row changes until it ends. Its events are lines in `runs/<id>/events.jsonl`, appended whole, so a reader that
follows sees them as they come and a crash costs none that was written.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select, update

from espalier.core.errors import Conflict, NotFound
from espalier.core.events import IDLE, Emit, Event
from espalier.core.types import Run
from espalier.store.database import Database
from espalier.store.disk import storage_errors, write_all
from espalier.store.tables import runs
from espalier.store.workspace import Workspace

ENDED = frozenset({"succeeded", "failed", "cancelled"})

_POLL_S = 0.1


class Runs:
    """All runs of one store."""

    def __init__(self, database: Database, workspace: Workspace) -> None:
        self._database = database
        self._workspace = workspace

    def create(self, run: Run) -> Run:
        """Record a run; raises Conflict when its id is taken."""
        with self._database.write(lock=f"run:{run.id}") as connection:
            if connection.execute(select(runs.c.id).where(runs.c.id == run.id)).first():
                raise Conflict(f"run {run.id} exists")
            connection.execute(insert(runs).values(id=run.id, created_ms=run.created_ms, **_columns(run)))
        return run

    def update(self, run_id: str, **changes: Any) -> Run:
        """Change fields of a run, validated as a whole. Raises NotFound."""
        with self._database.write(lock=f"run:{run_id}") as connection:
            run = Run.model_validate({**self.get(run_id).model_dump(), **changes})
            connection.execute(update(runs).where(runs.c.id == run_id).values(**_columns(run)))
        return run

    def get(self, run_id: str) -> Run:
        """Raises NotFound."""
        with self._database.read() as connection:
            body = connection.execute(select(runs.c.body).where(runs.c.id == run_id)).scalar()
        if body is None:
            raise NotFound(f"no run {run_id}", hint="`espalier runs list` shows them")
        return Run.model_validate(body)

    def list(
        self, *, parent: str | None = None, status: str = "", step: str = "", limit: int = 100, before: str = ""
    ) -> Sequence[Run]:
        """The newest first. `parent=""` gives those that stand alone; `before` is a run id, for the next page."""
        query = select(runs.c.body).order_by(runs.c.created_ms.desc(), runs.c.id.desc()).limit(limit)
        for column, value in ((runs.c.parent, parent), (runs.c.status, status or None), (runs.c.step, step or None)):
            if value is not None:
                query = query.where(column == value)
        if before:
            last = self.get(before)
            same = (runs.c.created_ms == last.created_ms) & (runs.c.id < last.id)
            query = query.where((runs.c.created_ms < last.created_ms) | same)
        with self._database.read() as connection:
            return [Run.model_validate(body) for body in connection.execute(query).scalars()]

    def folder(self, run_id: str) -> Path:
        """Where the run's event log and output log stand."""
        return self._workspace.run_folder(run_id)

    def emitter(self, run_id: str) -> Emit:
        """An `Emit` that appends to the run's log; any thread or process may hold one."""
        path = self._log(run_id)
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)

        def emit(event: Event) -> None:
            with storage_errors(path):
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
                try:
                    write_all(descriptor, event.to_json().encode() + b"\n")
                finally:
                    os.close(descriptor)

        return emit

    def events(self, run_id: str, follow: bool = False, idle_s: float = 0) -> Iterator[Event]:
        """The run's events in order; with `follow`, goes on until the run has ended. Raises NotFound.

        With `idle_s`, an `idle` event comes whenever nothing else has for so long, so that a reader can leave then.
        """
        self.get(run_id)
        position, rest, spoke_s = 0, b"", time.monotonic()
        while True:
            ended = not follow or self.get(run_id).status in ENDED  # asked before reading, so the last lines are read
            data = _read_from(self._log(run_id), position)
            position += len(data)
            *lines, rest = (rest + data).split(b"\n")  # a line still being written stays for the next round
            for line in lines:
                yield Event.from_json(line.decode())
            if ended:
                return
            if lines:
                spoke_s = time.monotonic()
            elif idle_s and time.monotonic() - spoke_s >= idle_s:
                yield Event(IDLE)
                spoke_s = time.monotonic()
            time.sleep(_POLL_S)

    def _log(self, run_id: str) -> Path:
        return self.folder(run_id) / "events.jsonl"


def _columns(run: Run) -> dict[str, Any]:
    body = run.model_dump(mode="json")
    return {name: body[name] for name in ("parent", "step", "name", "status")} | {"body": body}


def _read_from(path: Path, position: int) -> bytes:
    try:
        with path.open("rb") as log:
            log.seek(position)
            return log.read()
    except FileNotFoundError:
        return b""
