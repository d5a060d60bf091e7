"""Two machines, one PostgreSQL and one bucket: what one has done is a hit for the other, bytes and lineage included."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from espalier.core.config import StoreConfig
from espalier.pipeline.executors.inline import InlineExecutor
from espalier.pipeline.graph import load_pipeline
from espalier.pipeline.result import PipelineResult
from espalier.pipeline.run import run_pipeline
from espalier.store.store import open_store
from espalier.store.workspace import init_workspace

STEPS = """
from pathlib import Path

from espalier.core.step import step
from espalier.core.types import Spec


class Nothing(Spec):
    pass


@step("read", version=1, spec=Nothing, outputs={"text": "text"}, files=lambda spec, folder: [Path("in.txt")])
def read(context, spec):
    (context.output("text") / "t.txt").write_text(Path("in.txt").read_text().upper())


@step("count", version=1, spec=Nothing, inputs={"text": "text"}, outputs={"report": "report"})
def count(context, spec):
    (context.output("report") / "r.txt").write_text(str(len((context.input("text") / "t.txt").read_text())))
"""

PIPELINE = """
name: team
steps:
  read: {step: team_steps:read}
  count: {step: team_steps:count, inputs: {text: read.text}}
"""


def run(folder: Path, config: StoreConfig) -> tuple[PipelineResult, str]:
    """Run the project in `folder`; its result, and the report's text as this machine reads it."""
    folder.mkdir(exist_ok=True)
    for name, text in {"team_steps.py": STEPS, "p.yaml": PIPELINE, "in.txt": "words"}.items():
        (folder / name).write_text(text)
    sys.modules.pop("team_steps", None)
    sys.path.append(str(folder))
    store = open_store(init_workspace(folder), config)
    try:
        result = run_pipeline(load_pipeline(folder / "p.yaml"), store, executor=InlineExecutor(store))
        report = result.output("count", "report")
        assert [edge.role for edge in store.artifacts.parents(report)] == ["text"]
        return result, (store.artifacts.materialise(report) / "r.txt").read_text()
    finally:
        store.close()
        sys.path.remove(str(folder))


def test_one_machines_work_is_the_others_hit(
    tmp_path: Path, database_url: str, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = database_url or f"sqlite:///{tmp_path / 'shared.db'}"
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    config = StoreConfig(url=url, blobs=s3_url)
    first, text = run(tmp_path / "one", config)
    assert [node.status for node in first.nodes.values()] == ["ran", "ran"]
    second, same = run(tmp_path / "two", config)
    assert [node.status for node in second.nodes.values()] == ["hit", "hit"]
    assert second.nodes["count"].reason == f"hit: same inputs as {first.nodes['count'].run}"
    assert text == same == "5"
