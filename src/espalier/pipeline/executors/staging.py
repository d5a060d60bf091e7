"""What an executor on this machine does around a step: lay out its inputs, take in what it made, hear what it says."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from espalier.core.errors import from_json
from espalier.core.events import Emit, Event
from espalier.core.types import Artifact
from espalier.pipeline.executors.port import Outcome, Task
from espalier.store.disk import storage_errors
from espalier.store.store import Store


class Report:
    """What a step has said so far; `take` is fed every message."""

    def __init__(self, task: Task, emit: Emit) -> None:
        self.outcome = Outcome()
        self.meta: dict[str, dict[str, str]] = {port: {} for port in task.outputs}
        self.ended = False
        self._emit = emit

    def take(self, what: str, **said: Any) -> None:
        match what:
            case "event":
                self._emit(Event(**said))
            case "metric":
                self.outcome.metrics[said["name"]] = said["value"]
            case "describe":
                self.meta[said["output"]].update(said["meta"])
            case "error":
                self.outcome.error = from_json(said["error"])
            case "end":
                self.outcome.cpu_s = said["cpu_s"]
                self.ended = True


@contextmanager
def stage(store: Store, task: Task) -> Iterator[dict[str, Any]]:
    """The request for a step: its inputs laid out as folders, an empty place for its outputs, its scratch folder."""
    staging = store.workspace.staging_folder(task.run)
    scratch = store.workspace.scratch_folder(task.key)
    for folder in (staging, scratch):
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
    try:
        yield {
            "run": task.run,
            "key": task.key,
            "step": task.step,
            "spec": task.spec,
            "seed": task.seed,
            "inputs": {port: _lay_out(store, artifact) for port, artifact in task.inputs.items()},
            "outputs": dict(task.outputs),
            "folder": str(task.folder),
            "workspace": str(task.workspace),
            "actor": task.actor,
            "staging": str(staging),
            "scratch": str(scratch),
            "cache": str(store.workspace.cache_folder),
        }
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def take_in(store: Store, task: Task, request: Mapping[str, Any], report: Report) -> Outcome:
    """The report's outcome, with what stands in the staging folders stored as artifacts. Raises StorageFull."""
    outcome, staging = report.outcome, Path(request["staging"])
    if outcome.error is None:
        for port, kind in task.outputs.items():
            if (staging / port).is_dir():
                made = store.artifacts.stage(kind.removesuffix("?"), staging / port, report.meta[port], task.run)
                outcome.outputs[port] = made
    return outcome


def _lay_out(store: Store, artifact: Artifact) -> dict[str, Any]:
    return {"artifact": artifact.model_dump(), "path": str(store.artifacts.materialise(artifact.digest))}
