"""What a build says of itself is what it wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from espalier.core.errors import InvalidInput
from espalier.data.build import build_dataset
from espalier.data.layout import PROBLEMS
from espalier.data.manifest import read_manifest
from espalier.data.spec import DataSpec
from espalier.store.examples import read_examples

KNOWN = "What is the capital of the country in which the river Elbe has its source, and why is it so called?"
OTHERS = [
    "The pump in hall one makes a grinding noise since Monday, and nobody has looked at it yet.",
    "Nobody can log in to the portal because the account was locked after the third attempt.",
]


def make_spec(**changes: Any) -> DataSpec:
    whole = {"task": {"kind": "text"}, "steps": [], "split": {"test": 0, "validation": 0}, "source": {"path": "docs"}}
    return DataSpec.model_validate(whole | changes)


def write_documents(folder: Path, texts: list[str]) -> None:
    folder.mkdir(parents=True)
    for number, text in enumerate(texts):
        (folder / f"{number}.txt").write_text(text)


def test_figures_are_of_what_the_leak_gate_has_left(tmp_path: Path) -> None:
    write_documents(tmp_path / "docs", [KNOWN * 3, *OTHERS])
    (tmp_path / "bench.jsonl").write_text(json.dumps({"text": KNOWN * 3}) + "\n")
    leaks = {"against": ["../bench.jsonl"], "policy": "drop"}
    manifest = build_dataset(make_spec(leaks=leaks), tmp_path / "out", folder=tmp_path)
    texts = [example.text for example in read_examples(tmp_path / "out")]
    assert sorted(texts) == sorted(OTHERS) and manifest.examples == manifest.documents_kept == 2
    assert manifest.chars.total == sum(map(len, OTHERS)) and manifest.formats == {"txt": 2}


def test_a_leak_gate_that_leaves_nothing_to_train_on_refuses(tmp_path: Path) -> None:
    write_documents(tmp_path / "docs", [KNOWN])
    (tmp_path / "bench.jsonl").write_text(json.dumps({"text": KNOWN}) + "\n")
    with pytest.raises(InvalidInput, match="no example is left to train on"):
        leaks = {"against": ["../bench.jsonl"], "policy": "drop"}
        build_dataset(make_spec(leaks=leaks), tmp_path / "out", folder=tmp_path)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_folders_of_one_name_keep_their_own_licences_in_whatever_order_they_are_named(tmp_path: Path) -> None:
    for number, (folder, licence) in enumerate((("z/docs", "MIT"), ("a/docs", "CC-BY-4.0"))):
        write_documents(tmp_path / folder, [OTHERS[number]])
        (tmp_path / folder / "SOURCE.md").write_text(f"licence: {licence}\n")
    for name, paths in (("one", ["z/docs", "a/docs"]), ("two", ["a/docs", "z/docs"])):
        build_dataset(make_spec(source={"path": paths}), tmp_path / name, folder=tmp_path)
    manifest = read_manifest(tmp_path / "one")
    assert {name: told["spdx"] for name, told in manifest.licences.items()} == {"docs": "CC-BY-4.0", "z/docs": "MIT"}
    assert manifest.licence == "CC-BY-4.0 AND MIT"
    assert manifest.to_bytes() == read_manifest(tmp_path / "two").to_bytes()


def test_problems_that_only_a_step_finds_are_told_once_and_again_from_the_cache(tmp_path: Path) -> None:
    rows = [{"id": number // 2, "text": text} for number, text in enumerate([KNOWN, *OTHERS])]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    spec = make_spec(source={"path": "rows.jsonl", "id": "id"})
    for name in ("one", "two"):
        build_dataset(spec, tmp_path / name, folder=tmp_path, cache=tmp_path / "cache")
        told = [json.loads(line) for line in (tmp_path / name / PROBLEMS).read_text().splitlines()]
        assert [(each["kind"], each["line"]) for each in told] == [("broken_line", 4), ("duplicate_id", 2)]
