"""Espalier for benchmarks/train.py: `train.sft` as a recipe starts it, with the batch size of the others."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from meter import LORA, Meter, pin_threads, read_documents

pin_threads()

from espalier.core.events import Event  # noqa: E402
from espalier.core.types import Example, Message  # noqa: E402
from espalier.nn.lora import LoraSpec  # noqa: E402
from espalier.store.examples import write_examples  # noqa: E402
from espalier.train.corpus import Source  # noqa: E402
from espalier.train.job import Job  # noqa: E402
from espalier.train.recipe import SftSpec  # noqa: E402
from espalier.train.runner import run  # noqa: E402


def main() -> None:
    meter = Meter(json.loads(Path(sys.argv[1]).read_text()))
    job = meter.job
    meter.imported()
    work = Path(tempfile.mkdtemp(dir=job["out"]))
    examples = [
        Example(document["id"], [Message(**message) for message in document["messages"]])
        for document in read_documents(job)
    ]
    write_examples(work / "data" / "data" / "train-00000.parquet", examples)

    def watch(event: Event) -> None:
        """Both passes have the same number of steps; the first warms up."""
        if event.kind != "train.step":
            return
        step, steps = event.data["step"], event.data["steps"]
        if step > steps // 2:
            meter.losses.append(event.data["loss"])
            meter.tokens = event.data["tokens"] // 2
        if step == steps // 2:
            meter.begin()
        elif step == steps:
            meter.end()

    options = {"packs_per_step": 1, **job["options"]}
    spec = SftSpec(
        base=f"path:{job['base']}",
        epochs=2,
        lr=2e-4,
        schedule="constant",
        warmup_steps=0,
        lora=LoraSpec(rank=LORA["r"], alpha=LORA["lora_alpha"]),
        validation_examples=0,
        threads=1,
        **options,
    )
    folders = {"checkpoint_dir": work / "state", "cache_dir": work / "cache"}
    run(Job("sft", spec, (Source("", work / "data"),), work / "out", **folders), watch)
    for path in (work / "out").glob("adapter*"):
        shutil.copy(path, job["out"])
    shutil.rmtree(work)
    meter.report(passes=2)


if __name__ == "__main__":
    main()
