"""A corpus of everything at once, hostile files among it: the same bytes come out however and wherever it is read."""

from __future__ import annotations

import gzip
import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from espalier.data.build import build_dataset
from espalier.data.layout import read_exclusions
from espalier.data.manifest import DatasetManifest
from espalier.data.readers.sandbox import close_sandbox
from espalier.data.spec import DataSpec
from espalier.data.synth.tickets.docx import Text, write_docx
from espalier.data.synth.tickets.pdf import write_pdf
from espalier.testing.messy import write_messy

STORIES = [
    f"Report {number}: the pump in hall {number % 7} stood still for {number} hours; supplier {number * 31} was told."
    for number in range(60)
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "corpus"
    (root / "docs").mkdir(parents=True)
    for number, story in enumerate(STORIES[:12]):
        (root / "docs" / f"{number}.pdf").write_bytes(write_pdf([[story]]))
        (root / "docs" / f"{number}.docx").write_bytes(write_docx([Text(STORIES[12 + number])]))
        (root / "docs" / f"{number}.html").write_text(f"<main><p>{STORIES[24 + number]}</p></main>")
    (root / "docs" / "broken.pdf").write_bytes(b"%PDF-1.7 torn")
    (root / "docs" / "empty.docx").write_bytes(b"PK\x03\x04")
    with zipfile.ZipFile(root / "old.zip", "w") as archive:
        for number, story in enumerate(STORIES[36:48]):
            archive.writestr(f"in/{number}.txt", story)
        archive.writestr("../climb.txt", "never")
    rows = "".join(
        json.dumps({"text": story, "id": str(number % 10)}) + "\n" for number, story in enumerate(STORIES[48:])
    )
    (root / "rows.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    (root / "tables").mkdir()
    write_messy(root / "tables" / "messy.jsonl", 2_000, long_line_bytes=100_000)
    return root


def build(folder: Path, out: Path, path: list[str], workers: int) -> tuple[DatasetManifest, str]:
    spec = DataSpec.model_validate(
        {
            "name": "mixed",
            "source": {"path": path, "id": "id", "max_line_bytes": 50_000},
            "steps": [{"step": "normalise"}, {"step": "length"}],
            "task": {"kind": "text"},
            "workers": workers,
        }
    )
    manifest = build_dataset(spec, out, folder=folder, cache=out.parent / f"cache-{out.name}")
    hasher = hashlib.sha256()
    for file in sorted(item for item in out.rglob("*") if item.is_file()):
        hasher.update(f"{file.relative_to(out)}\0".encode() + file.read_bytes())
    return manifest, hasher.hexdigest()


def test_any_order_any_number_of_workers_and_a_warm_cache_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    places = ["docs", "old.zip", "rows.jsonl.gz", "tables/*.jsonl"]
    manifest, digest = build(folder, tmp_path / "one", places, workers=1)
    close_sandbox()
    assert build(folder, tmp_path / "two", places[::-1], workers=2)[1] == digest
    (tmp_path / "cache-three").symlink_to(tmp_path / "cache-one")
    assert build(folder, tmp_path / "three", places, workers=1)[1] == digest
    assert manifest.documents_kept > 1_900
    formats = manifest.formats
    assert {"pdf", "docx", "html", "txt", "jsonl"} <= set(formats) and formats["pdf"] == 12

    skipped = {item.uri: item.reason for item in manifest.skipped}
    assert skipped["docs/broken.pdf"].startswith("unreadable: ")
    assert skipped["docs/empty.docx"].startswith("unreadable: ")
    assert skipped["old.zip!/../climb.txt"].startswith("refused: ")

    problems = [json.loads(line) for line in (tmp_path / "one" / "problems.jsonl").read_text().splitlines()]
    kinds = {problem["kind"] for problem in problems}
    assert {"broken_line", "not_object", "long_line", "bom", "duplicate_id", "unreadable"} <= kinds
    repaired = [problem for problem in problems if problem["kind"] == "duplicate_id"]
    assert ("rows.jsonl.gz", 11) in {(problem["uri"], problem["line"]) for problem in repaired}
    assert str(tmp_path) not in (tmp_path / "one" / "manifest.json").read_text()
    assert read_exclusions(tmp_path / "one") is not None
