"""Losses, gradients and figures equal TRL's own trainers' on the same batch, in float32.

TRL computes prompt + chosen and prompt + rejected as two padded rows; here the prompt is computed once.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedModel

from espalier.tokens.pack import Strip, join, lay_branches
from espalier.train.preference.names import DpoLoss, KtoLoss
from espalier.train.preference.objectives import Dpo, Kto, Orpo
from espalier.train.preference.pairs import DESIRABLE, FOREIGN, UNDESIRABLE, add_prompt

from .conftest import Judged, backbone_of, draw_judged, step, with_reference

LOSS_TOLERANCE = 2e-6  # relative; float32 sums of a few hundred log-probabilities
GRADIENT_TOLERANCE = 1e-5  # of a tensor's norm
_PAIR = ["chosen", "rejected"]
_TEXTS = {"prompt": "the fox", "chosen": " is", "rejected": " was"}  # a trainer wants a dataset; its batch is ours


@pytest.fixture(autouse=True)
def _trl_may_warn() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _arguments(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "max_length": 512,
        **more,
    }


def _gradients(trainer: Any, batch: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return float(loss), {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}


def _assert_same(own: tuple[float, dict[str, torch.Tensor]], theirs: tuple[float, dict[str, torch.Tensor]]) -> None:
    assert own[0] == pytest.approx(theirs[0], rel=LOSS_TOLERANCE)
    assert own[1].keys() == theirs[1].keys()
    whole = torch.stack([gradient.norm() for gradient in theirs[1].values()]).norm()
    for name, gradient in theirs[1].items():
        assert (own[1][name] - gradient).norm() <= GRADIENT_TOLERANCE * max(gradient.norm(), 1e-3 * whole), name


@pytest.mark.parametrize(
    ("kind", "smoothing", "rpo_alpha"),
    [
        ("sigmoid", 0.0, 0.0),
        ("sigmoid", 0.0, 0.7),
        ("sigmoid_norm", 0.0, 0.0),
        ("hinge", 0.0, 0.0),
        ("ipo", 0.0, 0.0),
        ("robust", 0.1, 0.0),
        ("exo_pair", 0.1, 0.0),
        ("nca_pair", 0.0, 0.0),
        ("sppo_hard", 0.0, 0.0),
        ("apo_zero", 0.0, 0.0),
        ("apo_down", 0.0, 0.0),
    ],
)
def test_dpo(
    kind: DpoLoss,
    smoothing: float,
    rpo_alpha: float,
    policy: PreTrainedModel,
    reference: PreTrainedModel,
    tiny_base: Path,
    tmp_path: Path,
) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    judged = draw_judged(6, 2)
    kinds, weights = ([kind, "sft"], [1.0, rpo_alpha]) if rpo_alpha else ([kind], None)
    arguments = _arguments(tmp_path, loss_type=kinds, loss_weights=weights, beta=0.1, label_smoothing=smoothing)
    rows = [{"prompt_ids": j.prompt, "chosen_ids": j.answers[0], "rejected_ids": j.answers[1]} for j in judged]
    trainer = DPOTrainer(
        copy.deepcopy(policy),
        copy.deepcopy(reference),
        DPOConfig(**arguments),
        train_dataset=Dataset.from_list([_TEXTS]),
        processing_class=AutoTokenizer.from_pretrained(tiny_base),
    )
    theirs = _gradients(trainer, trainer.data_collator(rows))
    strips = with_reference([one.lay(str(n)) for n, one in enumerate(judged)], reference)
    loss, gradients, figures = step(
        Dpo(kind, 0.1, smoothing, rpo_alpha), backbone_of(policy), [join(strips[:2]), join(strips[2:])]
    )
    _assert_same((loss, gradients), theirs)
    shown = {name: values[0] for name, values in trainer._metrics["train"].items()}
    assert figures["reward_chosen"] == pytest.approx(shown["rewards/chosen"], rel=1e-4)
    assert figures["reward_rejected"] == pytest.approx(shown["rewards/rejected"], rel=1e-4)
    assert figures["margin"] == pytest.approx(shown["rewards/margins"], rel=1e-4)
    assert figures["accuracy"] == pytest.approx(shown["rewards/accuracies"])


def test_orpo(policy: PreTrainedModel, tiny_base: Path, tmp_path: Path) -> None:
    """TRL learns the prompt's tokens, too: `prompt_nll`."""
    from datasets import Dataset
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    judged = draw_judged(6, 2)
    words = AutoTokenizer.from_pretrained(tiny_base)
    trainer = ORPOTrainer(
        copy.deepcopy(policy),
        ORPOConfig(**_arguments(tmp_path, beta=0.1)),
        train_dataset=Dataset.from_list([_TEXTS]),
        processing_class=words,
    )
    theirs = _gradients(trainer, trainer.data_collator([_orpo_row(one) for one in judged]))
    strips = [add_prompt(one.lay(str(n))) for n, one in enumerate(judged)]
    loss, gradients, figures = step(
        Orpo(0.1, prompt_nll=True), backbone_of(policy), [join(strips[:4]), join(strips[4:])]
    )
    _assert_same((loss, gradients), theirs)
    shown = trainer._stored_metrics["train"]
    assert figures["margin"] == pytest.approx(shown["rewards/margins"][0], rel=1e-4)
    assert figures["nll"] == pytest.approx(shown["nll_loss"][0], rel=1e-5)
    assert figures["odds_ratio_loss"] == pytest.approx(-shown["log_odds_ratio"][0], rel=1e-4)


def _orpo_row(one: Judged) -> dict[str, Any]:
    row: dict[str, Any] = {"prompt_input_ids": one.prompt, "prompt_attention_mask": [1] * len(one.prompt)}
    for side, answer in zip(("chosen", "rejected"), one.answers, strict=True):
        row[f"{side}_input_ids"] = one.prompt + answer
        row[f"{side}_attention_mask"] = [1] * len(one.prompt + answer)
        row[f"{side}_labels"] = [-100] * len(one.prompt) + answer
    return row


@pytest.mark.parametrize("kind", ["kto", "apo_zero_unpaired"])
def test_kto(
    kind: KtoLoss, policy: PreTrainedModel, reference: PreTrainedModel, tiny_base: Path, tmp_path: Path
) -> None:
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    policy, reference = copy.deepcopy(reference), policy  # this way round the reference point is above 0
    judged = draw_judged(6, 1)
    good = [True, True, False, True, False, True]
    arguments = _arguments(tmp_path, loss_type=kind, beta=0.1, desirable_weight=1.2, undesirable_weight=0.8)
    rows = [
        {"prompt_ids": j.prompt, "completion_ids": j.answers[0], "label": g} for j, g in zip(judged, good, strict=True)
    ]
    trainer = KTOTrainer(
        copy.deepcopy(policy),
        copy.deepcopy(reference),
        KTOConfig(**arguments, per_device_train_batch_size=6),
        train_dataset=Dataset.from_list([{**_TEXTS, "completion": " is", "label": True}] * 6).remove_columns(_PAIR),
        processing_class=AutoTokenizer.from_pretrained(tiny_base),
    )
    others = [judged[n - 1].answers[0] for n in range(6)]  # TRL turns the batch's answers round by one
    batch = [{**row, "KL_completion_ids": other} for row, other in zip(rows, others, strict=True)]
    theirs = _gradients(trainer, trainer.data_collator(batch))
    strips = with_reference([_lay_verdict(*one) for one in zip(judged, others, good, strict=True)], reference)
    loss, gradients, figures = step(Kto(kind, 0.1, 1.2, 0.8), backbone_of(policy), [join(strips[:4]), join(strips[4:])])
    _assert_same((loss, gradients), theirs)
    shown = {name: values[0] for name, values in trainer._metrics["train"].items()}
    assert figures["kl"] == pytest.approx(shown["kl"], rel=1e-4)
    assert (figures["kl"] > 0) == (kind == "kto")
    assert figures["reward_chosen"] == pytest.approx(shown["rewards/chosen"], rel=1e-4)
    assert figures["reward_rejected"] == pytest.approx(shown["rewards/rejected"], rel=1e-4)
    assert figures["margin"] == pytest.approx(shown["rewards/margins"], rel=1e-4)


def _lay_verdict(one: Judged, other: list[int], good: bool) -> Strip:
    verdict = np.array([DESIRABLE if good else UNDESIRABLE, FOREIGN], np.int32)
    answers = [(ids, [1.0] * len(ids)) for ids in (one.answers[0], other)]
    return lay_branches("x", one.prompt, answers, {"verdict": verdict})
