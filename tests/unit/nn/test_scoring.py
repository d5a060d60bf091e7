"""A trained head on disk: transformers and PEFT read it with the same logits, and so do we."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from espalier.core.errors import DigestMismatch, InvalidInput, NotFound, UnsupportedModel
from espalier.core.types import Message
from espalier.nn.adapterfiles import origin_of
from espalier.nn.adapters import attach_adapters, read_adapter, save_adapter
from espalier.nn.base import LoadedBase, load_base
from espalier.nn.export import save_base
from espalier.nn.lora import LoraSpec
from espalier.nn.scorehead import HeadKind, add_to_adapter, add_to_model, draw_head, find_classifier, holds_head
from espalier.nn.scoring import open_scorer
from espalier.testing.tiny import make_tiny_base

LABELS = ("bill", "card", "loan")
TEXTS = [[5, 9, 40], [7], [11, 12, 13, 14, 15, 16, 80, 81], [30, 31]]


def load(folder: Path) -> LoadedBase:
    return load_base(f"path:{folder}")


def make_head(base: LoadedBase, kind: HeadKind = "classify") -> Any:
    return draw_head(kind, LABELS if kind == "classify" else (), base.config, 3, base.device)


def save_tuned(folder: Path, base: LoadedBase, kind: HeadKind = "classify") -> None:
    """An adapter that changes what the base says, with a head."""
    adapters = attach_adapters(base.model, LoraSpec(rank=4), seed=1)
    with torch.no_grad():
        for number, (name, tensor) in enumerate(adapters.named_parameters().items()):
            if name.endswith("lora_B.weight"):
                tensor.normal_(std=0.2, generator=torch.Generator().manual_seed(number))
    save_adapter(folder, adapters, base)
    add_to_adapter(folder, make_head(base, kind), origin_of(base))


def classifier(base: Path, labels: int = 3) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers says that the head is new
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels, dtype=torch.float32)
    return model.eval()


def logits_of(model: Any) -> np.ndarray[Any, Any]:
    """Each text alone, by transformers' own forward."""
    with torch.no_grad():
        return np.concatenate([model(input_ids=torch.tensor([ids])).logits.numpy() for ids in TEXTS])


@pytest.mark.parametrize("kind", ["classify", "reward"])
def test_peft_reads_an_adapter_with_its_head_and_gives_the_same_logits(
    tiny_folder: Path, tmp_path: Path, kind: HeadKind
) -> None:
    save_tuned(tmp_path / "a", load(tiny_folder), kind)
    ours = open_scorer(load(tiny_folder), tmp_path / "a").score(TEXTS)
    theirs = peft.PeftModel.from_pretrained(classifier(tiny_folder, 3 if kind == "classify" else 1), tmp_path / "a")
    np.testing.assert_allclose(ours, logits_of(theirs.eval()), rtol=1e-4, atol=1e-5)
    assert np.ptp(ours, axis=0).min() > 0.01  # texts differ, so does what is said of them


def test_peft_reads_a_head_alone(tiny_folder: Path, tmp_path: Path) -> None:
    base = load(tiny_folder)
    add_to_adapter(tmp_path / "h", make_head(base), origin_of(base))
    ours = open_scorer(load(tiny_folder), tmp_path / "h").score(TEXTS)
    theirs = peft.PeftModel.from_pretrained(classifier(tiny_folder), tmp_path / "h")
    np.testing.assert_allclose(ours, logits_of(theirs.eval()), rtol=1e-4, atol=1e-5)


def test_a_model_tuned_in_full_is_transformers_sequence_classifier(tiny_folder: Path, tmp_path: Path) -> None:
    base = load(tiny_folder)
    save_base(tmp_path / "m", base)
    add_to_model(tmp_path / "m", make_head(base), find_classifier(base.config))
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m", dtype=torch.float32).eval()
    assert type(theirs).__name__ == "LlamaForSequenceClassification"
    assert theirs.config.id2label == dict(enumerate(LABELS))
    ours = open_scorer(load(tmp_path / "m"), tmp_path / "m").score(TEXTS)
    np.testing.assert_allclose(ours, logits_of(theirs), rtol=1e-4, atol=1e-5)


def test_the_same_head_gives_the_same_bytes(tiny_folder: Path, tmp_path: Path) -> None:
    for name in "ab":
        save_tuned(tmp_path / name, load(tiny_folder))
    for file in sorted(path.name for path in (tmp_path / "a").iterdir()):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_text_is_given_its_likeliest_label_whatever_else_is_asked(tiny_folder: Path, tmp_path: Path) -> None:
    save_tuned(tmp_path / "a", load(tiny_folder))
    scorer = open_scorer(load(tiny_folder), tmp_path / "a")
    questions = [[Message("user", text)] for text in ("lost card", "a loan", "why this bill? " * 200)]
    together = scorer.classify(questions)
    for question, found in zip(questions, together, strict=True):
        (alone,) = scorer.classify([question])
        assert alone.label == found.label == max(found.probabilities, key=lambda label: found.probabilities[label])
        assert alone.probabilities == pytest.approx(found.probabilities, abs=1e-5)
        assert sum(found.probabilities.values()) == pytest.approx(1)


def test_a_reward_is_given_for_an_answer(tiny_folder: Path, tmp_path: Path) -> None:
    save_tuned(tmp_path / "r", load(tiny_folder), "reward")
    scorer = open_scorer(load(tiny_folder), tmp_path / "r")
    question = Message("user", "How are you?")
    good, poor = scorer.reward([[question, Message("assistant", text)] for text in ("Fine", "No")])
    assert good != poor
    with pytest.raises(InvalidInput, match="does not end with one"):
        scorer.reward([[question]])
    with pytest.raises(InvalidInput, match="trained by `reward`"):
        scorer.classify([[question]])


def test_what_cannot_be_used_is_refused_with_the_reason(tiny_folder: Path, tmp_path: Path) -> None:
    base = load(tiny_folder)
    save_adapter(tmp_path / "plain", attach_adapters(base.model, LoraSpec(rank=4), seed=1), base)
    with pytest.raises(NotFound, match="no head that gives scores"):
        open_scorer(load(tiny_folder), tmp_path / "plain")
    assert not holds_head(tmp_path / "plain")

    save_tuned(tmp_path / "a", load(tiny_folder))
    assert holds_head(tmp_path / "a")
    with pytest.raises(UnsupportedModel, match="gives scores, not text"):
        read_adapter(tmp_path / "a", load(tiny_folder))
    other = make_tiny_base(tmp_path / "other", seed=9)
    with pytest.raises(DigestMismatch):
        open_scorer(load(other), tmp_path / "a")

    config = tmp_path / "a" / "espalier.json"
    told = json.loads(config.read_text())
    told["head"]["labels"] = ["one", "two"]
    config.write_text(json.dumps(told))
    with pytest.raises(InvalidInput, match=r"\(2, 48\) of finite numbers"):
        open_scorer(load(tiny_folder), tmp_path / "a")
