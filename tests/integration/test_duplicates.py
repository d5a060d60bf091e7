"""Duplicates, splits and leaks through a whole build: versions after versions, and an evaluation set beside them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from espalier.core.errors import InvalidInput
from espalier.data.build import build_dataset
from espalier.data.layout import read_assignments, read_exclusions
from espalier.data.spec import DataSpec
from espalier.store.examples import read_examples

WORDS = [f"word{n}" for n in range(500)]


def write_rows(path: Path, texts: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def make_texts(seed: int, count: int) -> list[str]:
    return [" ".join(random.Random(f"{seed} {n}").choices(WORDS, k=40)) for n in range(count)]


def spec_of(folder: Path, **more: object) -> DataSpec:
    dedup = {"step": "dedup", **more.pop("dedup", {})}  # type: ignore[dict-item]
    return DataSpec.model_validate(
        {
            "name": "rows",
            "source": {"path": str(folder)},
            "steps": [dedup],
            "task": {"kind": "text"},
            "split": {"test": 0.2, "validation": 0.1},
            **more,
        }
    )


def reasons_of(folder: Path) -> dict[str, str]:
    return {row["text"]: row["reason"] for row in read_exclusions(folder)}


def test_what_an_earlier_version_holds_is_left_out_of_the_next(tmp_path: Path) -> None:
    old, new = make_texts(1, 60), make_texts(2, 30)
    write_rows(tmp_path / "old" / "rows.jsonl", old)
    build_dataset(spec_of(tmp_path / "old"), tmp_path / "rows-v1")
    near = old[3].replace(old[3].split()[20], "another", 1)
    write_rows(tmp_path / "new" / "rows.jsonl", [*new, old[7].upper(), near])
    spec = spec_of(tmp_path / "new", dedup={"against": [str(tmp_path / "rows-v1")]})
    manifest = build_dataset(spec, tmp_path / "rows-v2")
    assert manifest.examples == 30 and manifest.drops == {"exact duplicate": 1, "near duplicate": 1}
    reasons = reasons_of(tmp_path / "rows-v2")
    assert "(rows" in reasons[old[7].upper()] and "(rows" in reasons[near] and "Jaccard 0.8" in reasons[near]


def test_a_grown_source_moves_nothing_out_of_what_was_held_out(tmp_path: Path) -> None:
    """Without a word of the earlier version: the rows' digests, ids and shards are all others."""
    old = make_texts(3, 120)
    write_rows(tmp_path / "one" / "rows.jsonl", old)
    write_rows(tmp_path / "two" / "rows.jsonl", [*make_texts(4, 50), *old, *make_texts(5, 50)])
    for name in ("one", "two"):
        build_dataset(spec_of(tmp_path / name), tmp_path / f"{name}-built")
    before, after = (read_assignments(tmp_path / f"{name}-built") for name in ("one", "two"))
    assert len(before) == 120 and set(before.values()) == {"train", "validation", "test"}
    assert {group: after[group] for group in before} == before


def test_an_evaluation_sets_question_is_refused_or_left_out(tmp_path: Path) -> None:
    texts = make_texts(6, 60)
    write_rows(tmp_path / "in" / "rows.jsonl", texts)
    write_rows(tmp_path / "plain" / "rows.jsonl", texts)
    build_dataset(spec_of(tmp_path / "plain"), tmp_path / "built")
    learned = next(example.text for example in read_examples(tmp_path / "built", "train"))
    (tmp_path / "exam.csv").write_text(f"question\nWhat follows this: {' '.join(learned.split()[5:30])}?\n")
    with pytest.raises(InvalidInput, match=r"1 example would give away.*\n.*\(train\) ~ exam\.csv:2, \d+% of its runs"):
        build_dataset(spec_of(tmp_path / "in", leaks={"against": ["../exam.csv"]}), tmp_path / "refused")
    assert not (tmp_path / "refused" / "manifest.json").exists()
    spec = spec_of(tmp_path / "in", leaks={"against": ["../exam.csv"], "policy": "drop"})
    manifest = build_dataset(spec, tmp_path / "left-out")
    assert manifest.drops == {"leak": 1} and manifest.examples == 59
    assert reasons_of(tmp_path / "left-out")[learned].startswith("leak: exam.csv:2, ")
    assert learned not in {example.text for example in read_examples(tmp_path / "left-out")}


def test_chunks_of_one_document_stand_in_one_split(tmp_path: Path) -> None:
    for number in range(30):
        path = tmp_path / "in" / f"{number:02d}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n\n".join(make_texts(100 + number, 5)))
    spec = spec_of(tmp_path / "in", steps=[{"step": "chunk", "size": 400}, {"step": "dedup"}])
    build_dataset(spec, tmp_path / "built")
    splits: dict[str, set[str]] = {}
    for example in read_examples(tmp_path / "built"):
        splits.setdefault(example.documents[0].rpartition(".")[0], set()).add(example.split)
    assert len(splits) == 30 and all(len(each) == 1 for each in splits.values())
    assert set.union(*splits.values()) == {"train", "validation", "test"}
