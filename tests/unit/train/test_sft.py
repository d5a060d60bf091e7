"""Fine-tuning: it learns, it repeats itself to the byte, and bad data is refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.train.conftest import Train, digest_of_adapter

from espalier.core.errors import Conflict, InvalidInput
from espalier.core.events import Event
from espalier.core.types import Example, Message
from espalier.nn.adapters import read_adapter
from espalier.nn.base import load_base
from espalier.nn.freezing import FreezeSpec
from espalier.nn.lora import LoraSpec
from espalier.store.examples import write_examples
from espalier.train.recipe import SftSpec, StoppingSpec

SPEC = SftSpec(epochs=3, lora=LoraSpec(rank=4, alpha=8), lr=1e-2, pack_tokens=256, warmup_steps=2)


def test_training_lowers_the_loss_on_data_it_has_not_seen(train: Train, dataset: Path) -> None:
    seen: list[Event] = []
    result = train(dataset, SPEC, emit=seen.append)
    before = next(event.data["loss"] for event in seen if event.kind == "train.step")
    audit = next(event.data for event in seen if event.kind == "train.audit")
    assert result.progress.validation_loss is not None and result.progress.validation_loss < before - 1.0
    assert result.progress.supervised_tokens == 3 * audit["supervised_tokens"]


def test_the_same_data_seed_and_spec_give_the_same_adapter_bytes(train: Train, dataset: Path, tmp_path: Path) -> None:
    train(dataset, SPEC, name="a")
    train(dataset, SPEC, name="b")
    assert digest_of_adapter(tmp_path / "a") == digest_of_adapter(tmp_path / "b")


def test_the_number_of_cores_does_not_change_a_byte(train: Train, dataset: Path, tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"epochs": 1, "packs_per_step": 3})
    train(dataset, spec.model_copy(update={"threads": 1}), name="a")
    train(dataset, spec.model_copy(update={"threads": 3}), name="b")
    assert digest_of_adapter(tmp_path / "a") == digest_of_adapter(tmp_path / "b")


def test_another_seed_gives_another_adapter(train: Train, dataset: Path, tmp_path: Path) -> None:
    train(dataset, SPEC, name="a")
    train(dataset, SPEC.model_copy(update={"seed": 1}), name="b")
    assert digest_of_adapter(tmp_path / "a") != digest_of_adapter(tmp_path / "b")


def test_the_adapter_is_a_peft_folder_that_names_its_base(
    train: Train, dataset: Path, tiny_base: Path, tmp_path: Path
) -> None:
    train(dataset, SPEC)
    base = load_base(f"path:{tiny_base}")
    weights = read_adapter(tmp_path / "a", base)
    assert len(weights.layers) == 14
    assert json.loads((tmp_path / "a" / "espalier.json").read_text())["base_digest"] == base.base_digest


def test_a_finished_run_started_again_does_no_step(train: Train, dataset: Path, tmp_path: Path) -> None:
    train(dataset, SPEC)
    first = digest_of_adapter(tmp_path / "a")
    seen: list[Event] = []
    train(dataset, SPEC, emit=seen.append)
    assert digest_of_adapter(tmp_path / "a") == first
    assert not [event for event in seen if event.kind == "train.step"]


def test_a_checkpoint_of_another_recipe_is_refused_naming_what_differs(train: Train, dataset: Path) -> None:
    train(dataset, SPEC)
    other = SPEC.model_copy(update={"lr": 1e-3, "lora": LoraSpec(rank=4, alpha=16)})
    with pytest.raises(Conflict, match=r"its recipe\.lora\.alpha, recipe\.lr differ"):
        train(dataset, other)


def test_one_pack_after_another_equals_all_at_once(train: Train, dataset: Path) -> None:
    whole = SPEC.model_copy(update={"pack_tokens": 100_000, "epochs": 1})
    seen: dict[str, list[Event]] = {"whole": [], "parts": []}
    train(dataset, whole, name="whole", emit=seen["whole"].append)
    parts = whole.model_copy(update={"pack_tokens": 300, "packs_per_step": 1000})
    train(dataset, parts, name="parts", emit=seen["parts"].append)
    first = {
        name: next((e.data["loss"], e.data["grad_norm"]) for e in events if e.kind == "train.step")
        for name, events in seen.items()
    }
    assert first["parts"] == pytest.approx(first["whole"], rel=2e-2)  # bf16 products where the machine has them


def test_full_tuning_writes_a_model_that_loads(train: Train, dataset: Path, tmp_path: Path, tiny_base: Path) -> None:
    spec = SPEC.model_copy(update={"tune": "full", "lr": 3e-3, "epochs": 1})
    result = train(dataset, spec)
    tuned, before = load_base(f"path:{tmp_path / 'a'}"), load_base(f"path:{tiny_base}")
    assert result.trained_parameters == result.total_parameters
    assert tuned.base_digest != before.base_digest
    assert tuned.template_digest == before.template_digest


def test_going_on_from_an_adapter_starts_where_it_ended(train: Train, dataset: Path, tmp_path: Path) -> None:
    ended = train(dataset, SPEC)
    seen: list[Event] = []
    more = SPEC.model_copy(update={"epochs": 1, "lr": 1e-5})
    train(dataset, more, name="b", adapter=tmp_path / "a", emit=seen.append)
    first = next(event.data["loss"] for event in seen if event.kind == "train.step")
    assert first < 1.3 * (ended.progress.loss_last or 0) + 0.1


def test_a_run_that_gets_no_better_ends_early_with_its_best_weights(train: Train, dataset: Path) -> None:
    spec = SPEC.model_copy(
        update={"epochs": 20, "lr": 0.05, "keep_best": True, "evaluations": 40, "stopping": StoppingSpec(patience=2)}
    )
    seen: list[Event] = []
    progress = train(dataset, spec, emit=seen.append).progress
    looks = {e.data["step"]: e.data["validation_loss"] for e in seen if e.kind == "train.eval"}
    assert progress.stopped_early
    assert progress.best_step == min(looks, key=lambda step: (looks[step], step))
    assert len([step for step in looks if step > progress.best_step]) == 2


def test_the_audit_comes_before_the_first_step(train: Train, dataset: Path) -> None:
    kinds: list[str] = []
    train(dataset, SPEC, emit=lambda event: kinds.append(event.kind))
    assert kinds.index("train.audit") < kinds.index("train.step")
    assert kinds[-1] == "train.done"


def _only(folder: Path, example: Example) -> Path:
    write_examples(folder / "data" / "train-00000.parquet", [example])
    return folder


@pytest.mark.parametrize(
    "messages",
    [
        [Message("user", "Hi")],
        [Message("user", "Hi"), Message("assistant", "Yes", 0.0)],
        [Message("user", "long " * 2000), Message("assistant", "Yes")],
    ],
    ids=["no answer", "no weight", "cut off"],
)
def test_a_dataset_that_teaches_nothing_is_refused(train: Train, tmp_path: Path, messages: list[Message]) -> None:
    with pytest.raises(InvalidInput):
        train(_only(tmp_path / "poor", Example("x", messages)), SPEC)
    assert not (tmp_path / "a").exists()


def test_divergence_names_the_step_and_the_examples(train: Train, dataset: Path) -> None:
    wild = SPEC.model_copy(update={"lr": 1e30, "warmup_steps": 0})
    with pytest.raises(InvalidInput, match=r"diverged at step \d+.*train-\d+"):
        train(dataset, wild)


def test_without_a_validation_split_there_is_no_validation_loss_and_every_event_is_plain_json(
    train: Train, dataset: Path
) -> None:
    (dataset / "data" / "validation-00000.parquet").unlink()
    seen: list[Event] = []
    assert train(dataset, SPEC, emit=seen.append).progress.validation_loss is None
    for line in [event.to_json() for event in seen]:
        json.loads(line, parse_constant=pytest.fail)  # called for NaN and Infinity, which no browser reads


def test_freezing_is_refused_where_an_adapter_learns(train: Train, dataset: Path) -> None:
    with pytest.raises(InvalidInput, match="freeze says what full tuning leaves"):
        train(dataset, SPEC.model_copy(update={"freeze": FreezeSpec(layers_below=1)}))
