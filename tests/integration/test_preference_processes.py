"""KTO in two processes writes the bytes of one: its reference, and a reference point summed over the whole step."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from espalier.core.events import Event
from espalier.core.types import Example, Message
from espalier.nn.lora import LoraSpec
from espalier.store.examples import write_examples
from espalier.testing.tiny import make_tiny_base
from espalier.train.corpus import Source
from espalier.train.job import Job
from espalier.train.launch import launch
from espalier.train.methods.kto import KtoSpec
from espalier.train.recipe import WhereSpec


@pytest.mark.slow
def test_a_step_cut_over_two_processes_has_the_reference_point_of_one(tmp_path: Path) -> None:
    make_tiny_base(tmp_path / "base", seed=2)
    answers = [
        Example(
            f"a{n}",
            [Message("user", f"Say {n}. " * (1 + n % 4)), Message("assistant", f"<n>{n}</n>" if n % 4 else "lazy dog")],
            tags={"desirable": "true" if n % 4 else "false"},
        )
        for n in range(32)
    ]
    write_examples(tmp_path / "dataset" / "data" / "train-00000.parquet", answers)
    ends = {}
    for name, where in (("one", WhereSpec()), ("two", WhereSpec(kind="processes", workers=2))):
        spec = KtoSpec(
            base=f"path:{tmp_path / 'base'}",
            lora=LoraSpec(rank=4, alpha=8),
            lr=1e-2,
            pack_tokens=256,
            packs_per_step=3,
            where=where,
        )
        at = tmp_path / name
        told: list[Event] = []
        job = Job("kto", spec, (Source("", tmp_path / "dataset"),), at / "out", at / "state", at / "cache")
        launch(job, told.append)
        figures = [event.data for event in told if event.kind == "train.step"]
        cached = {path.name: path.read_bytes() for path in (at / "cache" / "reference").glob("*.safetensors")}
        adapter = sha256((at / "out" / "adapter_model.safetensors").read_bytes()).hexdigest()
        ends[name] = (adapter, cached, [(one["loss"], one["kl"]) for one in figures])
    assert ends["one"] == ends["two"]
    assert ends["one"][1]
    assert any(kl > 0 for _, kl in ends["one"][2])
