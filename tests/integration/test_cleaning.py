"""A recipe with every cleaning step: the same version from one process as from two, and a reason for every drop."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from espalier.data.build import build_dataset
from espalier.data.layout import read_exclusions
from espalier.data.spec import DataSpec

PROSE = (
    "The harbour of number {n} was quiet that morning, and the boats lay with their sails furled. Nobody had come to "
    "mend the nets, which is what one would have thought of first. Later a woman walked down the steps to look for her "
    "brother, who should have been back by {n} o'clock; she waited until dusk, counting {n} gulls and {m} stones."
)
GERMAN = (
    "Der Hafen war an diesem Morgen still, und die Boote lagen mit gerefften Segeln da. Niemand war gekommen, um die "
    "Netze zu flicken, woran man doch zuerst gedacht hätte. Später ging eine Frau die Stufen hinunter."
)
RECIPE: dict[str, Any] = {
    "name": "cleaned",
    "steps": [
        {"step": "licence"},
        {"step": "normalise"},
        {"step": "boilerplate"},
        {"step": "language", "keep": ["en"]},
        {"step": "quality", "languages": ["en"], "gopher": {"min_words": 40}},
        {"step": "toxicity", "lists": ["words.txt"], "max_share": 0.02},
        {"step": "python", "file": "my_steps.py", "on_error": "drop"},
        {"step": "length"},
        {"step": "chunk", "by": "sentences", "size": 200},
    ],
    "task": {"kind": "text"},
    "split": {"test": 0.2, "validation": 0.2, "near": 0.95},
}


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    folder = tmp_path / "pages"
    folder.mkdir()
    footer = "\n\nA footer that stands under every page of the house"
    texts = {f"prose{n:02}": PROSE.format(n=n, m=7 * n) + footer for n in range(20)}
    texts |= {
        "german": GERMAN,
        "short": "Too short, to be of use to the reader. That is all.",
        "fail": PROSE + " [fail]",
    }
    texts["rude"] = PROSE.format(n=99, m=98).replace("boats", "blasted").replace("sails", "blasted")
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    (folder / "noai.html").write_text(
        f'<html><head><meta name="robots" content="noai"></head><body><p>{PROSE}</p></body>'
    )
    (folder / "words.txt").write_text("blasted\n")
    (folder / "my_steps.py").write_text(
        "def clean(row):\n    if '[fail]' in row['text']:\n        1 / 0\n    return row\n"
    )
    return folder


@pytest.mark.slow
def test_every_drop_has_its_reason_and_two_workers_give_the_bytes_of_one(pages: Path, tmp_path: Path) -> None:
    files: list[dict[str, bytes]] = []
    for workers in (1, 2):
        out = tmp_path / f"out{workers}"
        manifest = build_dataset(DataSpec.model_validate({**RECIPE, "workers": workers}), out, source=pages)
        files.append({str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*.parquet"))})
    assert files[0] == files[1]
    assert manifest.drops == {
        "clean failed": 1,
        "language de": 1,
        "quality gopher.min_words": 1,
        "robots noai": 1,
        "toxic": 1,
    }
    reasons = Counter(row["step"] for row in read_exclusions(out))
    assert reasons == {"python@1": 1, "language@1": 1, "quality@1": 1, "licence@1": 1, "toxicity@1": 1}
    texts = [
        text for path in sorted((out / "data").rglob("*.parquet")) for text in pq.read_table(path)["text"].to_pylist()
    ]
    assert texts and max(map(len, texts)) <= 200 and not any("footer" in text for text in texts)
