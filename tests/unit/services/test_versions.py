"""Comparing, tagging and listing exclusions, as every face calls them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from espalier.core.errors import Conflict, InvalidInput, NotFound
from espalier.data.build import build_dataset
from espalier.data.spec import DataSpec
from espalier.pipeline.graph import load_pipeline
from espalier.services.catalogue import find_dataset, list_dataset_names, list_dataset_tags, publish_dataset
from espalier.services.context import Context, open_context
from espalier.services.datasets import BuildDataset, ShowDataset, build, show
from espalier.services.versions import DiffDatasets, ListExclusions, TagDataset, diff, exclusions, tag
from espalier.store.workspace import init_workspace


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    init_workspace(tmp_path)
    opened = open_context(tmp_path, actor="ada")
    yield opened
    opened.close()


@pytest.fixture
def published(context: Context, tmp_path: Path) -> Context:
    recipe = {"task": {"kind": "completion"}, "steps": [{"step": "length"}], "split": {"near": 1}, "workers": 1}
    spec = DataSpec.model_validate({**recipe, "leaks": {"near": 1}})
    for number in (1, 2):
        source = tmp_path / f"in{number}"
        source.mkdir()
        rows = [{"prompt": f"What is question {n}?", "completion": f"It is {n}."} for n in range(20 + number)]
        rows += [{"prompt": "?", "completion": "!"}]
        (source / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        build_dataset(spec, tmp_path / f"out{number}", source=source)
        artifact = context.store.artifacts.put("dataset", tmp_path / f"out{number}")
        publish_dataset(context.store, artifact, "support", "ada")
    return context


def test_two_versions_are_compared_by_their_names(published: Context) -> None:
    found = diff(published, DiffDatasets(before="support@v1", after="support"))
    assert (found.before, found.after) == ("dataset:support@v1", "dataset:support@v2")
    assert (found.unchanged, found.added, found.changed, found.removed) == (21, 1, 0, 0)


def test_an_example_is_shown_with_the_file_and_the_place_it_was_made_from(published: Context) -> None:
    (first,) = show(published, ShowDataset(ref="support@v1")).examples
    view = show(published, ShowDataset(ref="support@v1", id=first["id"]))
    (source,) = view.examples[0]["sources"]
    rows = (published.start / "in1" / source["uri"]).read_bytes()
    assert source["blob"] == hashlib.sha256(rows).hexdigest()
    question = first["messages"][0]["content"]
    assert question in rows.decode()[source["start"] : source["end"]]
    assert f"from rows.jsonl, page 1, characters {source['start']}-{source['end']}" in view.to_text()
    with pytest.raises(NotFound, match="no example 'ex_nope'"):
        show(published, ShowDataset(ref="support", id="ex_nope"))


def test_a_tag_names_a_version_until_it_is_moved(published: Context) -> None:
    store = published.store
    assert tag(published, TagDataset(ref="support@v1", tag="golden")).version == 1
    assert find_dataset(store, "support@golden").version == 1 and list_dataset_tags(store, "support") == {
        "golden": "v1"
    }
    assert list_dataset_names(store) == ["support"] and find_dataset(store, "support").version == 2
    with pytest.raises(Conflict):
        tag(published, TagDataset(ref="support@v2", tag="golden", expect="v2"))
    tag(published, TagDataset(ref="support@v2", tag="golden", expect="v1"))
    assert find_dataset(store, "dataset:support@golden").version == 2
    with pytest.raises(NotFound) as refusal:
        find_dataset(store, "support@silver")
    assert refusal.value.hint == "dataset:support has v1 to v2, golden"


@pytest.mark.parametrize("word", ["latest", "v3", "Golden!"])
def test_what_would_be_mistaken_for_a_version_is_no_tag(published: Context, word: str) -> None:
    with pytest.raises(InvalidInput):
        tag(published, TagDataset(ref="support@v1", tag=word))


def test_what_was_left_out_is_listed_by_reason_and_step(published: Context) -> None:
    found = exclusions(published, ListExclusions(ref="support"))
    assert found.total == 1 and found.rows[0].reason.startswith("too short") and found.rows[0].uri == "rows.jsonl"
    assert exclusions(published, ListExclusions(ref="support", reason="near")).total == 0
    assert exclusions(published, ListExclusions(ref="support", step="length")).total == 1
    assert "[length@2] too short" in found.to_text()


def test_a_recipe_of_another_kind_is_sent_to_its_command(context: Context, tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text("steps: {data: {step: data.build}}\n")
    (tmp_path / "dataset.yaml").write_text("source: {path: x}\nsteps: [{step: length}]\ntask: {kind: text}\n")
    with pytest.raises(InvalidInput, match="another kind") as refusal:
        build(context, BuildDataset(recipe="pipeline.yaml"))
    assert "`espalier run`" in refusal.value.hint
    with pytest.raises(InvalidInput, match="another kind") as refusal:
        load_pipeline(tmp_path / "dataset.yaml")
    assert "`espalier data build`" in refusal.value.hint
