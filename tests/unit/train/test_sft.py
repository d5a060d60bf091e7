"""Fine-tuning: it learns, it repeats itself to the byte, and bad data is refused in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from espalier.core.errors import Conflict, InvalidInput
from espalier.core.events import Event, ignore
from espalier.core.types import Example, Message
from espalier.nn.adapters import read_adapter
from espalier.nn.base import load_base
from espalier.nn.lora import LoraSpec
from espalier.store.examples import write_examples
from espalier.train.methods.sft import TrainResult, sft
from espalier.train.recipe import SftSpec

SPEC = SftSpec(epochs=3, lora=LoraSpec(rank=4, alpha=8), lr=1e-2, pack_tokens=256, warmup_steps=2)
Tune = Callable[..., TrainResult]


@pytest.fixture
def tune(tiny_base: Path, tmp_path: Path) -> Tune:
    def run(
        dataset: Path, name: str = "a", spec: SftSpec = SPEC, emit: Callable[[Event], None] = ignore
    ) -> TrainResult:
        base = load_base(f"path:{tiny_base}")
        return sft(spec, base, dataset, tmp_path / name, checkpoint_dir=tmp_path / f"{name}-state", emit=emit)

    return run


def test_training_lowers_the_loss_on_data_it_has_not_seen(tune: Tune, dataset: Path) -> None:
    seen: list[Event] = []
    result = tune(dataset, emit=seen.append)
    before = next(event.data["loss"] for event in seen if event.kind == "train.step")
    assert result.validation_loss < before - 1.0
    assert result.supervised_tokens == 3 * result.audit.supervised_tokens


def test_the_same_data_seed_and_spec_give_the_same_adapter_bytes(tune: Tune, dataset: Path) -> None:
    assert tune(dataset, "a").adapter_sha256 == tune(dataset, "b").adapter_sha256


def test_another_seed_gives_another_adapter(tune: Tune, dataset: Path) -> None:
    other = SPEC.model_copy(update={"seed": 1})
    assert tune(dataset, "a").adapter_sha256 != tune(dataset, "b", other).adapter_sha256


def test_the_adapter_is_a_peft_folder_that_names_its_base(
    tune: Tune, dataset: Path, tiny_base: Path, tmp_path: Path
) -> None:
    tune(dataset)
    base = load_base(f"path:{tiny_base}")
    weights = read_adapter(tmp_path / "a", base)
    assert len(weights.layers) == 14
    assert json.loads((tmp_path / "a" / "espalier.json").read_text())["base_digest"] == base.base_digest


def test_a_finished_run_started_again_does_no_step(tune: Tune, dataset: Path) -> None:
    first = tune(dataset)
    seen: list[Event] = []
    again = tune(dataset, emit=seen.append)
    assert again.adapter_sha256 == first.adapter_sha256
    assert not [event for event in seen if event.kind == "train.step"]


def test_a_checkpoint_of_another_recipe_is_refused(tune: Tune, dataset: Path) -> None:
    tune(dataset)
    with pytest.raises(Conflict, match="belongs to another run"):
        tune(dataset, spec=SPEC.model_copy(update={"lr": 1e-3}))


def test_accumulated_rectangles_equal_one_big_rectangle(tune: Tune, dataset: Path) -> None:
    whole = SPEC.model_copy(update={"pack_tokens": 100_000, "epochs": 1})
    seen: dict[str, list[Event]] = {"whole": [], "parts": []}
    tune(dataset, "whole", whole, seen["whole"].append)
    parts = whole.model_copy(update={"pack_tokens": 300, "packs_per_step": 1000})
    tune(dataset, "parts", parts, seen["parts"].append)
    norms = {
        name: [(e.data["loss"], e.data["grad_norm"]) for e in events if e.kind == "train.step"]
        for name, events in seen.items()
    }
    assert norms["parts"][0] == pytest.approx(norms["whole"][0], rel=2e-2)  # bf16 products where the machine has them


def test_the_audit_comes_before_the_first_step(tune: Tune, dataset: Path) -> None:
    kinds: list[str] = []
    tune(dataset, emit=lambda event: kinds.append(event.kind))
    assert kinds.index("train.audit") < kinds.index("train.step")
    assert kinds[-1] == "train.done"


def _only(folder: Path, example: Example) -> Path:
    write_examples(folder / "data" / "train-00000.parquet", [example])
    return folder


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([Message("user", "Hi")], "has an assistant's turn"),
        ([Message("user", "Hi"), Message("assistant", "Yes", 0.0)], "carries loss"),
        ([Message("user", "long " * 2000), Message("assistant", "Yes")], "cut off before their answer"),
    ],
)
def test_a_dataset_that_teaches_nothing_is_refused_saying_why(
    tune: Tune, tmp_path: Path, messages: list[Message], reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        tune(_only(tmp_path / "poor", Example("x", messages)))


def test_an_empty_train_split_is_refused(tune: Tune, tmp_path: Path) -> None:
    write_examples(tmp_path / "none" / "data" / "train-00000.parquet", [])
    with pytest.raises(InvalidInput, match="no training example"):
        tune(tmp_path / "none")


def test_divergence_names_the_step_and_the_examples(tune: Tune, dataset: Path) -> None:
    wild = SPEC.model_copy(update={"lr": 1e30, "warmup_steps": 0})
    with pytest.raises(InvalidInput, match=r"diverged at step \d+.*train-\d+"):
        tune(dataset, spec=wild)


def test_without_a_validation_split_there_is_no_validation_loss_and_every_event_is_plain_json(
    tune: Tune, dataset: Path
) -> None:
    (dataset / "data" / "validation-00000.parquet").unlink()
    seen: list[Event] = []
    assert tune(dataset, emit=seen.append).validation_loss is None
    for line in [event.to_json() for event in seen]:
        json.loads(line, parse_constant=pytest.fail)  # called for NaN and Infinity, which no browser reads
