"""Heads against the peers' own code on the same batch, in float32: TRL's RewardTrainer, transformers' classifiers.

They compute padded rows, one for every answer; here documents are packed and what two answers share is computed once.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from espalier.nn.assembly import dense_decoder
from espalier.nn.base import load_base
from espalier.nn.scorehead import ScoreHead
from espalier.nn.shape import lean_shape
from espalier.tokens.ends import lay_ends
from espalier.tokens.pack import Pack, Strip, join
from espalier.train.heads.objectives import Labelling, Preferring
from espalier.train.heads.pairs import lay_pair_ends
from espalier.train.objective import Objective, StepTotals

Computed = tuple[float, dict[str, Tensor]]


@pytest.fixture(autouse=True)
def _peers_may_warn() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load_peer(folder: Path, labels: int) -> Any:
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=labels, dtype=torch.float32)
    torch.nn.init.normal_(model.score.weight, std=0.3, generator=torch.Generator().manual_seed(4))
    return model


def compute_own(
    folder: Path, head: ScoreHead, objective: Objective, strips: Sequence[Strip], cut: int
) -> tuple[Computed, dict[str, float]]:
    """Loss and gradients over two packs, every weight learning."""
    base = load_base(f"path:{folder}", dtype="float32")
    shape = lean_shape(base.config)
    assert shape is not None
    backbone = dense_decoder(dict(base.model.named_parameters()), shape, torch.float32)
    packs: list[Pack] = [join(strips[:cut]), join(strips[cut:])]
    step = StepTotals(sum(objective.weigh(pack) for pack in packs))
    parameters = {**backbone.parameters, **head.parameters}
    losses = [objective.loss(backbone, pack, step) for pack in packs]
    total = losses[0].value + losses[1].value
    gradients = torch.autograd.grad(total, list(parameters.values()))
    figures = {name: sum(loss.figures[name] for loss in losses) / step.weight for name in losses[0].figures}
    return (float(total.detach()), dict(zip(parameters, gradients, strict=True))), figures


def compute_peer(model: Any, loss: Tensor) -> Computed:
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach()), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same(own: Computed, theirs: Computed) -> None:
    assert own[0] == pytest.approx(theirs[0], rel=2e-6)
    assert own[1].keys() == theirs[1].keys()
    whole = torch.stack([gradient.norm() for gradient in theirs[1].values()]).norm()
    for name, gradient in theirs[1].items():
        assert (own[1][name] - gradient).norm() <= 1e-5 * max(gradient.norm(), 1e-3 * whole), name


def draw(count: int, seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(3, 288, random.integers(1, 40)).tolist() for _ in range(count)]


@pytest.mark.parametrize(("centering", "margins"), [(0.0, False), (0.05, True)])
def test_reward(tiny_base: Path, tmp_path: Path, centering: float, margins: bool) -> None:
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    prompts, answers = draw(5), draw(10, seed=1)
    rows: list[dict[str, Any]] = [
        {"chosen_ids": prompt + answers[2 * n], "rejected_ids": prompt + answers[2 * n + 1]}
        | ({"margin": n / 4} if margins else {})
        for n, prompt in enumerate(prompts)
    ]
    model = load_peer(tiny_base, 1)
    head = ScoreHead("reward", (), model.score.weight.detach().clone().requires_grad_())
    strips = [
        lay_pair_ends(str(n), row["chosen_ids"], row["rejected_ids"], row.get("margin", 0.0))
        for n, row in enumerate(rows)
    ]
    assert sum(len(strip) for strip in strips) < sum(len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in rows)
    own, figures = compute_own(tiny_base, head, Preferring(head, centering), strips, 2)

    trainer = RewardTrainer(
        model,
        RewardConfig(
            output_dir=str(tmp_path),
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            center_rewards_coefficient=centering or None,
        ),
        train_dataset=Dataset.from_list([{"chosen": "the fox is", "rejected": "the fox was"}]),
        processing_class=AutoTokenizer.from_pretrained(tiny_base),
    )
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    assert_same(own, compute_peer(trainer.model, loss))
    shown = {name: values[0] for name, values in trainer._metrics["train"].items()}
    assert figures["accuracy"] == pytest.approx(shown["accuracy"])
    assert figures["margin"] == pytest.approx(shown["margin"], rel=1e-4)
    assert figures["reward"] == pytest.approx(shown["mean_reward"], rel=1e-4)


def test_classify(tiny_base: Path) -> None:
    texts, labels = draw(6), [0, 2, 1, 1, 0, 2]
    model = load_peer(tiny_base, 3)
    head = ScoreHead("classify", ("a", "b", "c"), model.score.weight.detach().clone().requires_grad_())
    strips = [lay_ends(str(n), (), [ids], [labels[n]], [1.0]) for n, ids in enumerate(texts)]
    own, _ = compute_own(tiny_base, head, Labelling(head, torch.ones(3)), strips, 4)

    longest = max(map(len, texts))
    ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids in texts])
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in texts])
    found = model(input_ids=ids, attention_mask=mask, labels=torch.tensor(labels))
    assert_same(own, compute_peer(model, found.loss))
