"""A user's project: three steps in modules of its own, a folder of inputs, and a workspace to run them in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from espalier.pipeline.executors.inline import InlineExecutor
from espalier.pipeline.graph import load_pipeline
from espalier.pipeline.result import PipelineResult
from espalier.pipeline.run import run_pipeline
from espalier.store.store import Store, open_store
from espalier.store.workspace import init_workspace

MODULES = ("cleaning", "toy_steps", "toy_counts")

CLEANING = '''
"""What a step's module uses and does not define itself."""

STOP = {"the": True, "a": True}


class Cleaner:
    def clean(self, text):
        return " ".join(word for word in text.lower().split() if word not in STOP)
'''

STEPS = '''
import json
import os
from pathlib import Path

from espalier.core.events import Event
from espalier.core.step import step
from espalier.core.types import Spec


class Read(Spec):
    source: str = "texts"
    shortest: int = 1


def named_files(spec, folder):
    return [Path(spec.source)]


@step("read", version=1, spec=Read, outputs={"rows": "rows"}, files=named_files, env=("TOY_SUFFIX",))
def read(context, spec):
    """Read and clean a folder of texts."""
    from cleaning import Cleaner

    suffix = os.environ.get("TOY_SUFFIX", "")
    rows = [Cleaner().clean(path.read_text()) + suffix for path in sorted(Path(spec.source).iterdir())]
    rows = [row for row in rows if len(row) >= spec.shortest]
    context.emit(Event("read.done", {"rows": len(rows)}))
    context.metric("rows", len(rows))
    context.describe("rows", rows=str(len(rows)))
    (context.output("rows") / "rows.json").write_text(json.dumps(rows))
'''

COUNTS = '''
import json
import os
from pathlib import Path

from espalier.core.errors import GateFailed
from espalier.core.step import step
from espalier.core.types import Spec


class Count(Spec):
    letters: str = "e"
    fail: str = ""


@step("count", version=1, spec=Count, inputs={"rows": "rows"}, outputs={"report": "report"})
def count(context, spec):
    """Count letters."""
    attempts = context.scratch / "attempts"
    tried = len(attempts.read_text()) + 1 if attempts.exists() else 1
    attempts.write_text("x" * tried)
    print("counting, attempt", tried)
    if spec.fail == "gate":
        raise GateFailed("too few letters", hint="write more")
    if spec.fail == "crash" or spec.fail == "crash once" and tried == 1:
        raise RuntimeError("flaky")
    if spec.fail == "die":
        os.kill(os.getpid(), 9)
    rows = json.loads((context.input("rows") / "rows.json").read_text())
    total = sum(row.count(letter) for row in rows for letter in spec.letters)
    context.metric("total", total)
    context.metric("tried", tried)
    if spec.fail != "nothing":
        (context.output("report") / "report.json").write_text(json.dumps({"total": total, "seed": context.seed}))


class Publish(Spec):
    into: str = "published"


@step("publish", version=1, spec=Publish, inputs={"report": "report"}, side_effect=True)
def publish(context, spec):
    """Append the report to a file outside."""
    with Path(spec.into).open("a") as log:
        log.write((context.input("report") / "report.json").read_text() + context.actor + "\\n")
'''

PIPELINE = """
name: toy
parameters: {shortest: 1}
steps:
  read:
    step: toy_steps:read
    with: {shortest: "${parameters.shortest}"}
  count:
    step: toy_counts:count
    inputs: {rows: read.rows}
"""


class Project:
    """Files of a made-up project; the pipeline runs in its folder."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder = folder
        self.store = store

    @property
    def pipeline(self) -> Path:
        return self.folder / "toy.yaml"

    def run(self, *, isolated: bool = False, **keywords: Any) -> PipelineResult:
        """Run the pipeline, each step in this process or `isolated` in its own."""
        if not isolated:
            self.forget_modules()
            keywords.setdefault("executor", InlineExecutor(self.store))
        return run_pipeline(load_pipeline(self.pipeline), self.store, **{"retry_s": 0.01, **keywords})

    def forget_modules(self) -> None:
        """As a new process would: the user's code is imported anew."""
        for name in MODULES:
            sys.modules.pop(name, None)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.folder / name).read_text()
        assert old in text
        self.write(name, text.replace(old, new))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    folder = tmp_path / "project"
    folder.mkdir()
    store = open_store(init_workspace(folder))
    made = Project(folder, store)
    made.write("cleaning.py", CLEANING)
    made.write("toy_steps.py", STEPS)
    made.write("toy_counts.py", COUNTS)
    made.write("toy.yaml", PIPELINE)
    made.write("texts/one.txt", "The end of the line")
    made.write("texts/two.txt", "A red tree")
    monkeypatch.delenv("TOY_SUFFIX", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two edits within a second leave no stale bytecode
    yield made
    made.forget_modules()
    store.close()
