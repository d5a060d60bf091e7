"""Creating a model from scratch: transformers loads it, and a wsd trunk can be ended early with the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from espalier.core.errors import Conflict, Interrupted
from espalier.core.events import Event, ignore
from espalier.core.types import Example
from espalier.nn.base import load_base
from espalier.store.examples import write_examples
from espalier.train import checkpoint
from espalier.train.methods.create import create
from espalier.train.recipe import CreateSpec, ShapeSpec

SHAPE = ShapeSpec(vocabulary=320, width=128, layers=2, heads=4, key_heads=4, hidden=96, context_tokens=128)
SPEC = CreateSpec(
    shape=SHAPE,
    steps=6,
    decay_steps=2,
    warmup_steps=1,
    pack_tokens=256,
    window_documents=8,
    mimetic=False,
    tokenizer_documents=20,
)


@pytest.fixture
def corpus(dataset: Path) -> Path:
    """The questions, and some raw text after them."""
    texts = [Example(f"text-{n}", text=f"A fox number {n} ran over the hill. " * 3) for n in range(12)]
    write_examples(dataset / "data" / "train-00001.parquet", texts)
    return dataset


def test_transformers_loads_what_came_out(corpus: Path, tmp_path: Path) -> None:
    result = create(SPEC, corpus, tmp_path / "model", emit=ignore, checkpoint_dir=tmp_path / "state")
    base = load_base(f"path:{tmp_path / 'model'}")
    assert sum(p.numel() for p in base.model.parameters()) == result.parameters
    logits = base.model(torch.tensor([base.tokenizer.encode("The fox")])).logits
    assert bool(logits.isfinite().all())
    assert result.loss_last < result.loss_first


def test_training_goes_through_the_text_after_the_questions_and_starts_over(corpus: Path, tmp_path: Path) -> None:
    long = SPEC.model_copy(update={"steps": 40, "decay_steps": 0})
    result = create(long, corpus, tmp_path / "model", emit=ignore, checkpoint_dir=tmp_path / "state")
    found = checkpoint.newest(tmp_path / "state")
    assert found is not None and found.state["cursor"]["epoch"] >= 1
    assert result.steps == 40


def test_a_run_stopped_and_started_again_ends_in_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    whole = create(SPEC, corpus, tmp_path / "whole", emit=ignore, checkpoint_dir=tmp_path / "state-whole")

    def stop(event: Event) -> None:
        if event.kind == "train.step" and event.data["step"] == 3:
            raise Interrupted("stopped by the user")

    with pytest.raises(Interrupted):
        create(SPEC, corpus, tmp_path / "parts", emit=stop, checkpoint_dir=tmp_path / "state")
    parts = create(SPEC, corpus, tmp_path / "parts", emit=ignore, checkpoint_dir=tmp_path / "state")
    assert parts.model_sha256 == whole.model_sha256


def test_a_trunk_ended_later_equals_a_run_of_that_length(corpus: Path, tmp_path: Path) -> None:
    """A trunk stopped before its decay, continued under another length."""

    def stop(event: Event) -> None:
        if event.kind == "train.step" and event.data["step"] == 4:
            raise Interrupted("stopped by the user")

    with pytest.raises(Interrupted):
        create(SPEC, corpus, tmp_path / "model", emit=stop, checkpoint_dir=tmp_path / "trunk")
    longer = SPEC.model_copy(update={"steps": 8})
    continued = create(longer, corpus, tmp_path / "a", emit=ignore, checkpoint_dir=tmp_path / "trunk")
    straight = create(longer, corpus, tmp_path / "b", emit=ignore, checkpoint_dir=tmp_path / "fresh")
    assert continued.model_sha256 == straight.model_sha256


def test_a_change_of_shape_does_not_take_up_the_old_run(corpus: Path, tmp_path: Path) -> None:
    create(SPEC, corpus, tmp_path / "model", emit=ignore, checkpoint_dir=tmp_path / "state")
    other = SPEC.model_copy(update={"muon_lr": 0.5})
    with pytest.raises(Conflict, match="another run"):
        create(other, corpus, tmp_path / "model", emit=ignore, checkpoint_dir=tmp_path / "state")
