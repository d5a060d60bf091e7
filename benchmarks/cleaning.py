"""Cleaning steps on one core: MB of text a second (CPU time) for each, on the PEPs cut into documents of 4 kB.

Each step sees the same batch twice: the first run compiles or loads what is compiled, the second counts. Prints rows
and, last, JSON.

    .venv/bin/python benchmarks/cleaning.py [--megabytes 16]
"""

from __future__ import annotations

import argparse
import json
import os
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import pyarrow as pa

from espalier.core.plugins import load_plugin
from espalier.core.types import Document, Span
from espalier.data.flow.batch import to_batch
from espalier.data.flow.spread import run_here

PEPS = Path(__file__).resolve().parents[2] / "shared/data/peps/peps_even_rst.tar.gz"
DOCUMENT_CHARS = 4000
STEPS: dict[str, dict[str, Any]] = {
    "normalise": {"step": "normalise"},
    "length": {"step": "length"},
    "quality: Gopher": {"step": "quality", "repetition": None},
    "quality: Gopher, repetition": {"step": "quality"},
    "chunk by bytes": {"step": "chunk"},
    "chunk by sentences": {"step": "chunk", "by": "sentences"},
    "chunk by headings": {"step": "chunk", "by": "headings"},
    "toxicity, 500 phrases": {"step": "toxicity", "lists": ["words.txt"]},
    "language": {"step": "language"},
    "replies": {"step": "replies", "formats": ["txt"]},
    "unwrap": {"step": "unwrap"},
}


def read_batch(megabytes: int) -> pa.RecordBatch:
    """Documents of the PEPs, again and again up to so much text."""
    with tarfile.open(PEPS) as archive:
        members = sorted((member for member in archive if member.isfile()), key=lambda member: member.name)
        texts = [archive.extractfile(member).read().decode(errors="replace") for member in members]  # type: ignore[union-attr]
    parts = [text[at : at + DOCUMENT_CHARS] for text in texts for at in range(0, len(text), DOCUMENT_CHARS)]
    wanted = (megabytes << 20) // DOCUMENT_CHARS
    parts = (parts * (wanted // len(parts) + 1))[:wanted]
    span = Span("0" * 64, "peps")
    return to_batch(Document(f"d{n}", text, span, {"format": "txt"}) for n, text in enumerate(parts))


def measure(work: Callable[[], object], size_bytes: int) -> float:
    """MB a CPU second of the second of two runs."""
    work()
    start = time.process_time()
    work()
    return size_bytes / 1e6 / (time.process_time() - start)


def main() -> None:
    """Measure each step and print its row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=16)
    batch = read_batch(parser.parse_args().megabytes)
    size_bytes = batch.column("text").nbytes
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "words.txt").write_text("\n".join(f"unwanted{n}" for n in range(500)))
        for name, parameters in STEPS.items():
            declared = load_plugin("espalier.cleaners", parameters["step"])
            step = declared.prepare(declared.spec.model_validate(parameters), Path(folder))
            found[name] = measure(lambda step=step: step.apply(batch), size_bytes)  # type: ignore[misc]
        declared = load_plugin("espalier.cleaners", "boilerplate")
        survey = declared.prepare(declared.spec(), Path(folder))
        sketch = survey.sketch(batch)
        [decision] = survey.decide([sketch], [batch], Path(folder), run_here)
        found["boilerplate: looking"] = measure(lambda: survey.sketch(batch), size_bytes)
        found["boilerplate: removing"] = measure(lambda: survey.apply_decision(batch, decision), size_bytes)
    for name, speed in found.items():
        print(f"{name:30}{speed:8.0f} MB/s")
    print(json.dumps({"mb_per_cpu_s": {name: round(speed, 1) for name, speed in found.items()}}))


if __name__ == "__main__":
    main()
