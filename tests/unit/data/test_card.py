"""What a version's card and summary tell."""

from __future__ import annotations

import json
from pathlib import Path

from espalier.data.build import build_dataset
from espalier.data.card import write_summary
from espalier.data.manifest import read_manifest
from espalier.data.spec import DataSpec
from espalier.data.tally import Tally


def test_terms_and_credit_labels_and_what_was_made_of_how_much_are_told(tmp_path: Path) -> None:
    source = tmp_path / "tickets"
    source.mkdir()
    (source / "SOURCE.md").write_text("- licence: CC-BY-4.0\n- source: https://example.org/x\n- commit: abc\n")
    rows = [{"text": f"Where is parcel {n}?", "label": ("delivery", "refund")[n % 2]} for n in range(40)]
    (source / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    recipe = {"task": {"kind": "classification"}, "steps": [{"step": "length", "min_chars": 5}], "split": {"near": 1}}
    spec = DataSpec.model_validate({**recipe, "leaks": {"near": 1}, "workers": 1})
    manifest = build_dataset(spec, tmp_path / "out", source=source)
    assert manifest.labels["label"] == {"delivery": 20, "refund": 20} and manifest.licence == "CC-BY-4.0"
    card = (tmp_path / "out" / "card.md").read_text()
    assert "| tickets | CC-BY-4.0 | https://example.org/x@abc | SOURCE.md |" in card
    assert "## Answers by label" in card and "Licence: CC-BY-4.0." in card
    assert "40 examples from 40 of 40 documents in 1 files" in card
    assert "Terms of the sources" in write_summary(read_manifest(tmp_path / "out"))


def test_documents_cut_in_chunks_are_told_as_made_of_fewer(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(6):
        words = " ".join(f"word{number}x{n}" for n in range(400))
        (tmp_path / "in" / f"{number}.txt").write_text(words)
    steps = [{"step": "chunk", "size": 500}]
    spec = DataSpec.model_validate({"task": {"kind": "text"}, "steps": steps, "workers": 1})
    manifest = build_dataset(spec, tmp_path / "out", source=tmp_path / "in")
    assert manifest.examples > 20
    assert f"{manifest.examples} examples made of 6 documents" in write_summary(manifest)


def test_a_tag_of_too_many_values_is_no_label() -> None:
    one, other = Tally(), Tally()
    one.add_tagged({f"a{n}": 1 for n in range(600)})
    other.add_tagged({f"b{n}": 1 for n in range(600)})
    assert len(one.list_labels()["label"]) == 600
    one.add(Tally.from_json(json.loads(json.dumps(other.to_json()))))
    assert one.list_labels() == {} and Tally.from_json(one.to_json()).tagged is None
