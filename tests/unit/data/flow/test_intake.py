"""What was read is kept under what it depends on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from espalier.core.types import Document, Span
from espalier.data.flow import intake
from espalier.data.flow.batch import to_batch
from espalier.data.flow.intake import ReadSource, read_sources
from espalier.data.flow.plan import plan_steps
from espalier.data.flow.run import Flow, run_steps
from espalier.data.flow.shard import cut_shards, load_shard
from espalier.data.flow.spread import run_here
from espalier.data.readers.options import ReadOptions
from espalier.data.readers.problem import Problem
from espalier.data.readers.source import SourceFile, hash_file
from espalier.data.steps import list_specs


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What each reading gives, the next one first."""
    given: list[Any] = []

    def read(source: SourceFile, options: ReadOptions, watch: Any = None) -> Iterator[Any]:
        yield from given.pop(0)

    monkeypatch.setattr(intake, "read_source", read)
    return given


def read(folder: Path) -> ReadSource:
    path = folder / "a.txt"
    path.write_text("a source")
    source = SourceFile(path, "a.txt", hash_file(path))
    (found,) = read_sources(Flow(folder / "cache", run_here, lambda event: None), [source], ReadOptions())
    return found


def flow_texts(folder: Path, found: ReadSource) -> list[str]:
    plan = plan_steps([list_specs()["normalise"].model_validate({"step": "normalise"})], folder)
    flowed = run_steps(Flow(folder / "cache", run_here, lambda event: None), list(cut_shards(found.parts)), plan)
    return [text for shard in flowed.shards for text in load_shard(shard).column("text").to_pylist()]


def make(*texts: str) -> Any:
    return to_batch([Document(f"a.{n}", text, Span("blob", "a.txt")) for n, text in enumerate(texts)])


def late() -> Problem:
    return Problem("unreadable", "a.txt", 0, "it took too long", "skip", transient=True)


def test_what_a_time_out_left_is_read_again_and_its_outcomes_are_not_taken_for_the_whole(
    tmp_path: Path, reads: list[Any]
) -> None:
    reads += [[make("one  ", "two"), late()], [make("one  ", "two", "three")]]
    assert flow_texts(tmp_path, read(tmp_path)) == ["one", "two"]
    assert flow_texts(tmp_path, read(tmp_path)) == ["one", "two", "three"]
    assert flow_texts(tmp_path, read(tmp_path)) == ["one", "two", "three"]


def test_a_time_out_takes_nothing_from_who_read_the_source_whole_meanwhile(tmp_path: Path, reads: list[Any]) -> None:
    reads += [[make("one", "two")]]
    whole = read(tmp_path)
    Path(whole.note).unlink()  # as if the other build had not got so far when this one looked
    reads += [[late()]]
    assert [problem.message for problem in read(tmp_path).problems()] == ["it took too long"]
    assert flow_texts(tmp_path, whole) == ["one", "two"]
