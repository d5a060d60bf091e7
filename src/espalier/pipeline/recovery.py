"""After a crash: runs whose process died are marked so, and what they left half-made is taken away.

A running pipeline holds a lock on a file in its run's folder. A run that says `running` while nobody holds its lock
is dead.
"""

from __future__ import annotations

import shutil

from espalier.core.errors import Interrupted
from espalier.core.ids import now_ms
from espalier.core.types import Run
from espalier.pipeline.locks import FileLock
from espalier.store.store import Store

PIPELINE = "pipeline"  # what a pipeline's own run names as its step


def run_lock(store: Store, run_id: str) -> FileLock:
    """The lock a pipeline's process holds while it works on the run."""
    return FileLock(store.runs.folder(run_id) / "lock")


def bury_dead_runs(store: Store) -> list[str]:
    """Mark runs of dead processes as failed; returns their ids. Other machines' (no lock here) are left alone."""
    roots: dict[str, list[Run]] = {}
    for run in store.runs.list(status="running", limit=1000):
        roots.setdefault(run.parent or run.id, []).append(run)
    buried = []
    for root, runs in roots.items():
        lock = run_lock(store, root)
        if lock.path.exists() and lock.try_acquire():
            for run in runs:
                if run.parent or run.step == PIPELINE:  # a run the pipeline was given is its owner's to end
                    _bury(store, run)
                    buried.append(run.id)
            lock.release()
    return buried


def _bury(store: Store, run: Run) -> None:
    error = Interrupted("its process died", hint="run the same command again: finished steps are kept")
    store.runs.update(run.id, status="failed", ended_ms=now_ms(), error=error.to_json())
    shutil.rmtree(store.workspace.staging_folder(run.id), ignore_errors=True)
