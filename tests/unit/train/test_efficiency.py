"""Adapters of every kind through the whole of training: they learn, and repeat themselves to the byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.unit.train.conftest import Train, digest_of_adapter

from espalier.core.errors import InvalidInput
from espalier.core.events import Event
from espalier.nn.adapters import read_adapter
from espalier.nn.adaptersheet import describe_adapter
from espalier.nn.base import load_base
from espalier.nn.freezing import FreezeSpec
from espalier.nn.lora import LoraSpec
from espalier.nn.merging import merge_into_base
from espalier.train.recipe import SftSpec

PLAIN = LoraSpec(rank=4, alpha=8)
SPEC = SftSpec(epochs=2, lora=PLAIN, lr=1e-2, pack_tokens=256, packs_per_step=3, warmup_steps=2)

KINDS = {
    "patterns": SPEC.model_copy(
        update={"lora": LoraSpec(rank=4, alpha=8, ranks={"q_proj": 2, "down_proj": 8}, rslora=True)}
    ),
    "last layer": SPEC.model_copy(update={"lora": LoraSpec(rank=4, alpha=8, layers=1)}),
    "dropout": SPEC.model_copy(update={"lora": LoraSpec(rank=4, alpha=8, dropout=0.2)}),
    "dora": SPEC.model_copy(update={"lora": LoraSpec(rank=4, alpha=8, dora=True)}),
    "nf4": SPEC.model_copy(update={"quantise": "nf4"}),
    "int8": SPEC.model_copy(update={"quantise": "int8"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_and_the_number_of_cores_changes_no_byte(
    kind: str, train: Train, dataset: Path, tmp_path: Path
) -> None:
    spec = KINDS[kind]
    seen: list[Event] = []
    result = train(dataset, spec.model_copy(update={"threads": 1}), name="a", emit=seen.append)
    first = next(event.data["loss"] for event in seen if event.kind == "train.step")
    assert result.progress.validation_loss is not None and result.progress.validation_loss < first - 0.5
    train(dataset, spec.model_copy(update={"threads": 3}), name="b")
    assert digest_of_adapter(tmp_path / "a") == digest_of_adapter(tmp_path / "b")
    origin = json.loads((tmp_path / "a" / "espalier.json").read_text())
    assert origin["quantised"] == spec.quantise
    assert describe_adapter(tmp_path / "a").kind == {"dora": "DoRA", "patterns": "rsLoRA"}.get(kind, "LoRA")


def test_training_goes_on_from_an_adapter_of_any_kind(train: Train, dataset: Path, tmp_path: Path) -> None:
    spec = KINDS["dora"]
    first = train(dataset, spec, name="a")
    seen: list[Event] = []
    train(dataset, spec.model_copy(update={"epochs": 1}), name="b", adapter=tmp_path / "a", emit=seen.append)
    begun = next(event.data["loss"] for event in seen if event.kind == "train.step")
    assert first.progress.validation_loss is not None
    assert begun < first.progress.validation_loss + 0.3
    assert describe_adapter(tmp_path / "b").kind == "DoRA"


def test_a_dora_is_served_as_it_is_and_by_way_of_its_merge(
    train: Train, dataset: Path, tmp_path: Path, tiny_base: Path
) -> None:
    train(dataset, KINDS["dora"])
    base = load_base(f"path:{tiny_base}")
    served = read_adapter(tmp_path / "a", base)
    assert set(served.gains) == set(served.layers) != set()
    digest = merge_into_base(base, tmp_path / "a", tmp_path / "merged")
    assert load_base(f"path:{tmp_path / 'merged'}").base_digest == digest


def test_full_tuning_leaves_what_is_frozen_as_it_was(
    train: Train, dataset: Path, tmp_path: Path, tiny_base: Path
) -> None:
    freeze = FreezeSpec(layers_below=1, names=("*.mlp.*",))
    spec = SPEC.model_copy(update={"tune": "full", "freeze": freeze, "lr": 1e-3})
    train(dataset, spec)
    before, after = load_base(f"path:{tiny_base}").model, load_base(f"path:{tmp_path / 'a'}").model
    changed = {name for name, p in after.named_parameters() if not torch.equal(p, before.get_parameter(name))}
    own = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
           "input_layernorm", "post_attention_layernorm")  # fmt: skip
    assert changed == {f"model.layers.1.{name}.weight" for name in own} | {"model.norm.weight"}


def test_a_quantised_base_cannot_be_tuned_whole(train: Train, dataset: Path) -> None:
    with pytest.raises(InvalidInput, match="nf4"):
        train(dataset, SPEC.model_copy(update={"tune": "full", "quantise": "nf4"}))
