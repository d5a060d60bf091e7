"""The engine: the same outcome however it is cut and wherever it runs, and nothing done twice."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from espalier.core.errors import InvalidInput
from espalier.core.events import Event
from espalier.core.refs import Ref
from espalier.core.types import Document, Span
from espalier.data.flow import chain, shard
from espalier.data.flow.batch import SCHEMA, to_batch
from espalier.data.flow.files import save_batches
from espalier.data.flow.plan import plan_steps
from espalier.data.flow.run import Flow, Flowed, run_steps
from espalier.data.flow.shard import Part, Shard, cut_shards, load_shard
from espalier.data.flow.spread import Spread, run_here
from espalier.data.flow.workers import open_spread
from espalier.data.steps import list_specs

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "the",
    "lazy",
    "dog",
    "and",
    "runs",
    "far",
    "away",
    "from",
    "it",
]
RECIPE = [("normalise", {}), ("length", {"min_chars": 30}), ("dedup", {}), ("redact", {})]


def write_source(folder: Path, name: str, texts: list[str], rows_in_batch: int = 4) -> list[Part]:
    documents = [Document(f"{name}.{n}", text, Span(name, f"{name}.txt")) for n, text in enumerate(texts, 1)]
    batch = to_batch(documents)
    batches = [batch.slice(at, rows_in_batch) for at in range(0, len(batch), rows_in_batch)]
    path = folder / f"{name}.arrow"
    save_batches(path, SCHEMA, batches)
    last = len(batches) - 1
    return [Part(str(path), n, name, f"{name}.txt", len(b), 100 * len(b), n == last) for n, b in enumerate(batches)]


def make_texts(seed: int, count: int = 10) -> list[str]:
    texts = [" ".join(WORDS[(seed * 7 + n * 3 + k * k) % len(WORDS)] for k in range(12)) for n in range(count)]
    return [*texts, "short", f"  write to ann{seed}@example.com about   it, or call the office  ", texts[0] + "."]


@pytest.fixture
def parts(tmp_path: Path) -> list[Part]:
    return [part for seed in range(6) for part in write_source(tmp_path, f"{seed:02x}", make_texts(seed))]


def run_recipe(cache: Path, parts: list[Part], recipe: list[tuple[str, dict[str, Any]]], spread: Spread) -> Flowed:
    specs = list_specs()
    plan = plan_steps([specs[name].model_validate({"step": name, **given}) for name, given in recipe], cache)
    return run_steps(Flow(cache, spread, lambda event: None), list(cut_shards(parts)), plan)


def read_rows(shards: list[Shard]) -> list[dict[str, Any]]:
    return [row for each in shards for row in load_shard(each).to_pylist()]


def test_the_cut_of_a_corpus_does_not_show_in_what_comes_out(
    tmp_path: Path, parts: list[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_recipe(tmp_path / "one", parts, RECIPE, run_here)
    monkeypatch.setattr(shard, "SHARD_ROWS", 5)
    cut = run_recipe(tmp_path / "two", parts, RECIPE, run_here)
    assert len(cut.shards) > len(whole.shards) == 1
    assert read_rows(cut.shards) == read_rows(whole.shards)
    assert [(report.step, report.drops) for report in cut.reports] == [
        (report.step, report.drops) for report in whole.reports
    ]
    assert whole.reports[1].drops == {"too short": 6}
    assert whole.reports[2].drops["exact duplicate"] >= 6


def test_two_processes_give_what_one_gives(tmp_path: Path, parts: list[Part], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard, "SHARD_ROWS", 9)
    alone = run_recipe(tmp_path / "one", parts, RECIPE, run_here)
    with open_spread(2) as spread:
        together = run_recipe(tmp_path / "two", parts, RECIPE, spread)
    assert [each.key for each in together.shards] == [each.key for each in alone.shards]
    assert read_rows(together.shards) == read_rows(alone.shards)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The steps that were really computed, shard by shard."""
    steps: list[str] = []
    compute = chain._Runner._make

    def note(self: Any, planned: Any, path: Path) -> dict[str, Any]:
        steps.append(planned.name)
        return compute(self, planned, path)

    monkeypatch.setattr(chain._Runner, "_make", note)
    yield steps


def test_a_recipe_changed_at_its_end_computes_its_end_alone(tmp_path: Path, parts: list[Part], made: list[str]) -> None:
    run_recipe(tmp_path, parts, RECIPE, run_here)
    assert made == ["normalise", "length", "dedup", "redact"]
    made.clear()
    run_recipe(tmp_path, parts, RECIPE, run_here)
    assert made == []
    run_recipe(tmp_path, parts, [*RECIPE[:3], ("redact", {"kinds": ["IP"]})], run_here)
    assert made == ["redact"]
    made.clear()
    run_recipe(tmp_path, parts, [*RECIPE[:2], ("dedup", {"near": 0.9}), RECIPE[3]], run_here)
    assert made == ["dedup", "redact"]


def test_a_new_source_is_computed_and_the_shards_before_it_are_not(
    tmp_path: Path, parts: list[Part], made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard, "SHARD_ROWS", 13)  # one source a shard
    first = run_recipe(tmp_path, parts, RECIPE[:2], run_here)
    made.clear()
    more = [*parts, *write_source(tmp_path, "ff", make_texts(99))]
    second = run_recipe(tmp_path, more, RECIPE[:2], run_here)
    assert made == ["normalise", "length"]
    assert second.shards[: len(first.shards)] == first.shards


def test_what_was_dropped_before_redaction_is_redacted_in_the_exclusions(tmp_path: Path) -> None:
    parts = write_source(tmp_path, "aa", ["ann@example.com", "a text that is long enough to be kept here"])
    flowed = run_recipe(tmp_path, parts, [("length", {"min_chars": 20}), ("redact", {})], run_here)
    (path,) = flowed.dropped
    from espalier.data.flow.files import BatchFile

    assert BatchFile(Path(path))[0].column("text").to_pylist() == ["[EMAIL]"]


def test_redaction_added_later_redacts_what_an_earlier_build_had_dropped(tmp_path: Path, made: list[str]) -> None:
    from espalier.data.flow.files import BatchFile

    parts = write_source(tmp_path, "aa", ["ann@example.com", "a text that is long enough to be kept here"])
    plain = run_recipe(tmp_path, parts, [("length", {"min_chars": 20})], run_here)
    assert BatchFile(Path(plain.dropped[0]))[0].column("text").to_pylist() == ["ann@example.com"]
    for redaction, shown in (({}, "[EMAIL]"), ({"kinds": ["IP"]}, "ann@example.com"), ({}, "[EMAIL]")):
        made.clear()
        flowed = run_recipe(tmp_path, parts, [("length", {"min_chars": 20}), ("redact", redaction)], run_here)
        assert BatchFile(Path(flowed.dropped[0]))[0].column("text").to_pylist() == [shown]
        assert "length" not in made


def test_a_renamed_source_keeps_what_was_read_under_its_new_name(tmp_path: Path) -> None:
    (part,) = write_source(tmp_path, "aa", ["one", "two"])
    renamed = Part(part.path, 0, part.key, "b/new.txt", part.rows, part.text_bytes, True)
    (loaded,) = (load_shard(each) for each in cut_shards([renamed]))
    assert {span["uri"] for spans in loaded.column("spans").to_pylist() for span in spans} == {"b/new.txt"}


def test_an_error_in_a_worker_is_the_same_error_here() -> None:
    with open_spread(2) as spread, pytest.raises(InvalidInput) as caught:
        list(spread(Ref.parse, ["dataset:a@v1", "dataset:a@@"]))
    assert caught.value.hint


def test_results_come_in_the_order_of_the_tasks_wherever_they_run() -> None:
    with open_spread(2) as spread:
        assert list(spread(abs, range(-20, 0))) == list(range(20, 0, -1))
        assert os.getpid() not in set(spread(eval, ["__import__('os').getpid()"] * 4))
    assert set(run_here(eval, ["__import__('os').getpid()"] * 3)) == {os.getpid()}


def test_progress_tells_shards_and_an_estimate(
    tmp_path: Path, parts: list[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard, "SHARD_ROWS", 5)
    monkeypatch.setattr("espalier.data.flow.run._PROGRESS_S", 0.0)
    events: list[Event] = []
    plan = plan_steps([list_specs()["normalise"].model_validate({"step": "normalise"})], tmp_path)
    run_steps(Flow(tmp_path, run_here, events.append), list(cut_shards(parts)), plan)
    told = [event.data for event in events if event.kind == "data.progress"]
    assert told[-1]["shards"] == told[-1]["of_shards"] == len(told)
    assert told[-1]["eta_s"] == 0
    assert told[0]["steps"] == ["normalise@2"]


def test_a_shard_ends_where_its_content_says_so_and_never_grows_too_large() -> None:
    parts = [Part("p", 0, hashlib.sha256(bytes([n])).hexdigest(), f"{n}", 10, 1 << 20, True) for n in range(100)]
    shards = list(cut_shards(parts))
    assert [part for each in shards for part in each.parts] == parts
    assert all(sum(part.text_bytes for part in each.parts) <= shard.SHARD_BYTES for each in shards)
    later = list(cut_shards([Part("p", 0, "ee", "new", 10, 1 << 20, True), *parts]))
    assert {each.key for each in later} & {each.key for each in shards}


def test_an_empty_corpus_flows_through(tmp_path: Path) -> None:
    flowed = run_recipe(tmp_path, [], RECIPE, run_here)
    assert flowed.shards == []
    assert [report.rows_in for report in flowed.reports] == [0, 0, 0, 0]


def test_a_batch_is_what_is_sent_and_no_python_object(tmp_path: Path, parts: list[Part]) -> None:
    (loaded, *_) = (load_shard(each) for each in cut_shards(parts))
    assert isinstance(loaded, pa.RecordBatch)
    assert loaded.schema.equals(SCHEMA)
