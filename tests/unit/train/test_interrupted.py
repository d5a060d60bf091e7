"""A run interrupted by whoever watches it, at whatever event, ends as the undisturbed one: looks at validation too."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.train.conftest import Train, digest_of_adapter

from espalier.core.errors import Interrupted
from espalier.core.events import Event
from espalier.nn.lora import LoraSpec
from espalier.train.recipe import SftSpec

SPEC = SftSpec(
    epochs=3, steps=4, lora=LoraSpec(rank=4, alpha=8), lr=1e-2, pack_tokens=256, evaluations=2, keep_best=True
)


@pytest.mark.parametrize(("kind", "step"), [("train.step", 2), ("train.eval", 2), ("train.step", 4)])
def test_an_interrupted_run_looks_at_validation_where_the_undisturbed_one_does(
    train: Train, dataset: Path, tmp_path: Path, kind: str, step: int
) -> None:
    def interrupt(event: Event) -> None:
        if event.kind == kind and event.data["step"] == step:
            raise Interrupted("stopped")

    whole = train(dataset, SPEC, name="whole").progress
    with pytest.raises(Interrupted):
        train(dataset, SPEC, name="cut", emit=interrupt)
    resumed = train(dataset, SPEC, name="cut").progress
    for name in ("best_step", "best_loss", "looks_without_gain", "validation_loss"):
        assert getattr(resumed, name) == getattr(whole, name), name
    assert digest_of_adapter(tmp_path / "cut") == digest_of_adapter(tmp_path / "whole")
