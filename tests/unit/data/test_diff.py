"""What comparing two versions says, against versions whose differences are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from espalier.core.types import Example, Message
from espalier.data.build import build_dataset
from espalier.data.diff import compare_datasets
from espalier.data.spec import DataSpec
from espalier.store.examples import write_examples

ROWS = [{"prompt": f"Question number {n} of all?", "completion": f"Answer {n}."} for n in range(40)]


def build(folder: Path, rows: list[dict[str, Any]], **changes: Any) -> Path:
    source = folder / "in"
    source.mkdir(parents=True)
    (source / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    recipe = {"task": {"kind": "completion"}, "steps": [{"step": "length", "min_chars": 5}], "split": {"near": 1}}
    spec = DataSpec.model_validate({**recipe, "leaks": {"near": 1}, "workers": 1, **changes})
    build_dataset(spec, folder / "out", source=source)
    return folder / "out"


def test_rows_added_removed_and_changed_are_told_apart(tmp_path: Path) -> None:
    changed = [{**row, "completion": "Another answer."} if n in (3, 4) else row for n, row in enumerate(ROWS[:-1])]
    before = build(tmp_path / "one", ROWS)
    after = build(tmp_path / "two", [*changed, {"prompt": "A new question?", "completion": "Yes."}, ROWS[0]])
    found = compare_datasets(before, after)
    # The last row of the first version and the first new one stand on the same line: one changed into the other.
    assert (found.examples, found.unchanged, found.changed, found.added, found.removed) == ((40, 41), 37, 3, 1, 0)
    assert [row.kind for row in found.rows] == ["added", "changed", "changed", "changed"]
    assert "Question number 0" in found.rows[0].text


def test_the_same_rows_in_another_order_are_unchanged(tmp_path: Path) -> None:
    before, after = build(tmp_path / "one", ROWS), build(tmp_path / "two", ROWS[::-1])
    found = compare_datasets(before, after)
    assert (found.unchanged, found.changed, found.added, found.removed) == (40, 0, 0, 0)
    assert not found.moved and not found.recipe and not found.counts and not found.rows


def test_what_the_recipe_did_and_what_it_came_to_are_told(tmp_path: Path) -> None:
    before = build(tmp_path / "one", ROWS)
    steps = [{"step": "length", "min_chars": 37}, {"step": "dedup"}]
    after = build(tmp_path / "two", ROWS, steps=steps, split={"near": 1, "test": 0.3, "salt": "x"})
    found = compare_datasets(before, after)
    assert "length.min_chars: 5 -> 37" in found.recipe and "with dedup@2" in found.recipe
    assert 'split.salt: "" -> "x"' in found.recipe and "split.test: 0.1 -> 0.3" in found.recipe
    assert found.removed == 40 - found.unchanged > 0 and found.counts["drops"]["too short"][0] == 0
    assert sum(found.moved.values()) > 0 and "chars" in found.lengths
    text = found.to_text()
    assert "Recipe\n" in text and f"{found.removed} removed" in text and "too short  0 -> " in text


def write_version(folder: Path, texts: list[str]) -> Path:
    examples = [Example(f"ex_{n}", [Message("user", text), Message("assistant", "a")]) for n, text in enumerate(texts)]
    write_examples(folder / "data" / "train-00000.parquet", examples)
    spread = dict.fromkeys(("minimum", "p5", "median", "p95", "maximum", "total"), 0)
    manifest = {name: {} for name in ("splits", "drops", "redactions", "labels", "formats", "task", "split")}
    manifest |= {name: [] for name in ("steps", "sources", "skipped")}
    manifest |= {"name": "x", "examples": len(texts), "documents_read": 0, "documents_kept": 0}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "chars": spread, "words": spread}))
    return folder


@given(st.lists(st.sampled_from("abcd"), max_size=8), st.lists(st.sampled_from("abcd"), max_size=8))
def test_rows_that_say_the_same_are_matched_one_by_one(
    tmp_path_factory: Any, before: list[str], after: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("versions")
    found = compare_datasets(write_version(folder / "one", before), write_version(folder / "two", after))
    shared = sum(min(before.count(text), after.count(text)) for text in "abcd")
    assert found.unchanged == shared
    assert found.added + found.changed == len(after) - shared
    assert found.removed + found.changed == len(before) - shared
