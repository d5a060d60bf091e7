"""Distillation through the one runner: the teacher's numbers, what is kept of them, and that a student learns them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tests.unit.train.conftest import Train, digest_of_adapter
from transformers import AutoModelForCausalLM

from espalier.core.errors import DigestMismatch
from espalier.core.events import Event
from espalier.nn.base import load_base
from espalier.nn.probe import transformer_backbone
from espalier.testing.tiny import make_tiny_base
from espalier.tokens.mask import Tokenized
from espalier.tokens.pack import lay
from espalier.tokens.tokenizer import save_tokenizer, train_tokenizer
from espalier.train.distillation.kept import CHOICE, Rows, is_whole, write_choices
from espalier.train.distillation.spec import DistillSpec
from espalier.train.distillation.teacher import LocalTeacher

QUICK: dict[str, Any] = {
    "method": "distill", "lora": {"rank": 8}, "lr": 1e-2, "pack_tokens": 512, "warmup_steps": 2, "epochs": 1, "k": 16,
}  # fmt: skip


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that says other things than the student."""
    return make_tiny_base(tmp_path_factory.mktemp("teacher"), seed=5)


def spec_for(teacher: Path, **changes: Any) -> DistillSpec:
    return DistillSpec.model_validate(QUICK | {"teacher": {"base": f"path:{teacher}"}} | changes)


def events(seen: list[Event], kind: str) -> list[dict[str, Any]]:
    return [dict(event.data) for event in seen if event.kind == kind]


def test_a_teachers_choices_are_its_models_likeliest_tokens(teacher: Path) -> None:
    base = load_base(f"path:{teacher}")
    whole = len(base.model.get_output_embeddings().weight)
    asked = LocalTeacher(transformer_backbone(base.model, {}), 7, whole, False, 2.0, 64, {})
    texts = [[1, 9, 30, 31, 2], [5, 6, 7], [40] * 12]
    strips = [lay(Tokenized(str(n), ids, [0.0, *([1.0] * (len(ids) - 1))])) for n, ids in enumerate(texts)]
    model = AutoModelForCausalLM.from_pretrained(teacher, dtype=torch.float32)
    for ids, found in zip(texts, asked.choose(strips), strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids[:-1]])).logits[0]
        wanted = torch.log_softmax(logits / 2.0, -1).topk(7)
        np.testing.assert_allclose(found["logp"], wanted.values, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(found["id"], wanted.indices)


@pytest.mark.parametrize("changes", [{"alpha": 1.0}, {"divergence": "js", "temperature": 2.0, "alpha": 1.0}])
def test_a_student_comes_nearer_to_its_teacher(
    train: Train, dataset: Path, teacher: Path, changes: dict[str, Any]
) -> None:
    seen: list[Event] = []
    train(dataset, spec_for(teacher, epochs=3, **changes), emit=seen.append)
    looks = [look["divergence"] for look in events(seen, "train.eval")]
    assert looks[-1] < 0.8 * events(seen, "train.step")[0]["divergence"]
    assert looks[-1] < looks[0]


def test_a_student_that_is_its_teacher_is_no_way_from_it(train: Train, dataset: Path, tiny_base: Path) -> None:
    seen: list[Event] = []
    train(dataset, spec_for(tiny_base, steps=1), emit=seen.append)
    assert events(seen, "train.step")[0]["divergence"] == pytest.approx(0, abs=2e-2)  # bf16 products in training


def test_the_same_teacher_gives_the_same_bytes_on_any_number_of_cores(
    train: Train, dataset: Path, teacher: Path, tmp_path: Path
) -> None:
    for name, threads in (("a", 1), ("b", 2)):
        train(dataset, spec_for(teacher, steps=2, threads=threads), name=name)
        shutil.rmtree(tmp_path / "cache")
    assert digest_of_adapter(tmp_path / "a") == digest_of_adapter(tmp_path / "b")


def test_a_teacher_is_asked_once_and_again_only_for_what_was_damaged(
    train: Train, dataset: Path, teacher: Path, tmp_path: Path
) -> None:
    first: list[Event] = []
    train(dataset, spec_for(teacher, steps=1), name="a", emit=first.append)
    asked = len(events(first, "train.teacher"))
    assert asked >= 2  # training and validation
    again: list[Event] = []
    train(dataset, spec_for(teacher, steps=1, divergence="reverse"), name="b", emit=again.append)
    assert not events(again, "train.teacher")
    victim = next((tmp_path / "cache" / "teacher").glob("*.npy"))
    victim.write_bytes(victim.read_bytes()[:-1])
    last: list[Event] = []
    train(dataset, spec_for(teacher, steps=1), name="c", emit=last.append)
    assert len(events(last, "train.teacher")) == 1
    assert digest_of_adapter(tmp_path / "c") == digest_of_adapter(tmp_path / "a")


def test_a_teacher_of_another_tokenizer_is_refused_with_the_way_out(
    train: Train, dataset: Path, teacher: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(teacher, tmp_path / "other")
    save_tokenizer(train_tokenizer(["Other words are cut otherwise. "] * 3, vocabulary=288), other, context_tokens=512)
    with pytest.raises(DigestMismatch, match=r"has another tokenizer.*\n.*espalier data generate"):
        train(dataset, spec_for(other))


@pytest.mark.parametrize(
    ("teacher_of", "reason"),
    [
        ({}, "either a base or an endpoint"),
        ({"base": "builtin:seedling", "endpoint": "http://127.0.0.1:1/v1"}, "either a base or an endpoint"),
        ({"endpoint": "http://127.0.0.1:1/v1", "model": "big"}, "`tokenizer`, to check"),
        ({"endpoint": "http://127.0.0.1:1/v1", "model": "big", "tokenizer": "path:x"}, "at temperature 1 only"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused(teacher_of: dict[str, str], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        DistillSpec.model_validate({"teacher": teacher_of, "temperature": 2.0})


def test_rows_are_read_across_blocks_as_if_they_were_one(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0)
    blocks = [np.zeros((rows, 3), CHOICE) for rows in (4, 1, 0, 5)]
    for number, block in enumerate(blocks):
        block["id"] = drawn.integers(0, 100, block.shape)
        write_choices(tmp_path / f"{number}.npy", block)
        assert is_whole(tmp_path / f"{number}.npy", len(block), 3)
        assert not is_whole(tmp_path / f"{number}.npy", len(block) + 1, 3)
    paths = [tmp_path / f"{number}.npy" for number in range(4)]
    rows, whole = Rows(paths, [4, 1, 0, 5], "id"), np.concatenate(blocks)["id"]
    for start in range(10):
        for stop in range(start, 11):
            np.testing.assert_array_equal(rows[start:stop], whole[start:stop])
