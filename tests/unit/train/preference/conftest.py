"""A random base, a policy that has moved away from it, and preferences of many lengths."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from espalier.core.types import Example, Message
from espalier.nn.assembly import dense_decoder
from espalier.nn.backbone import Backbone
from espalier.nn.packmask import PACKED, register
from espalier.nn.shape import lean_shape
from espalier.nn.transformer import Transformer
from espalier.tokens.pack import Pack, Strip, join, lay_branches
from espalier.tokens.tokenizer import ChatTokenizer, load_tokenizer
from espalier.train.objective import Objective, StepTotals
from espalier.train.preference.objectives import sequence_logp


def make_pairs(count: int) -> list[Example]:
    """Questions with a right and a wrong answer, of many lengths."""
    return [
        Example(
            f"pair-{n}",
            [Message("user", f"Give the code. {'The fox is quick. ' * (n % 4)}The code is {n:03d}.")],
            chosen=[Message("assistant", f"<code>{n:03d}</code>" + " quick" * (n % 3))],
            rejected=[Message("assistant", "lazy dog " * (1 + n % 5))],
        )
        for n in range(count)
    ]


def make_verdicts(count: int) -> list[Example]:
    """One answer each, every third a bad one."""
    return [
        Example(
            f"verdict-{n}",
            [
                Message("user", f"Give the code. {'The fox is quick. ' * (n % 4)}The code is {n:03d}."),
                Message("assistant", f"<code>{n:03d}</code>" if n % 3 else "lazy dog"),
            ],
            tags={"desirable": "true" if n % 3 else "false"},
        )
        for n in range(count)
    ]


@dataclass(frozen=True)
class Judged:
    """A prompt and its answers as ids, the same for us and for TRL."""

    prompt: list[int]
    answers: list[list[int]]

    def lay(self, id: str) -> Strip:
        return lay_branches(id, self.prompt, [(ids, [1.0] * len(ids)) for ids in self.answers])


def draw_judged(count: int, answers: int, seed: int = 0) -> list[Judged]:
    """Random ids; the shortest answer has one token."""
    random = np.random.default_rng(seed)

    def draw(low: int, high: int) -> list[int]:
        return random.integers(3, 288, random.integers(low, high)).tolist()  # type: ignore[no-any-return]

    made = [Judged(draw(2, 24), [draw(1, 30) for _ in range(answers)]) for _ in range(count)]
    return [*made[:-1], replace(made[-1], answers=[[7 + n] for n in range(answers)])]


def with_reference(strips: Sequence[Strip], reference: PreTrainedModel) -> list[Strip]:
    """The strips with the extra `reference`."""
    with torch.no_grad():
        logp = [sequence_logp(backbone_of(reference), join([strip])).numpy() for strip in strips]
    return [replace(strip, extras={**strip.extras, "reference": own}) for strip, own in zip(strips, logp, strict=True)]


def backbone_of(model: PreTrainedModel) -> Backbone:
    """The lean decoder, every weight learning, in float32."""
    shape = lean_shape(model.config)
    assert shape is not None
    return dense_decoder(dict(model.named_parameters()), shape, torch.float32)


def general_backbone_of(model: PreTrainedModel) -> Backbone:
    """transformers' own code, every weight learning."""
    register()
    model.set_attn_implementation(PACKED)
    return Transformer(model, dict(model.named_parameters()))


def step(
    objective: Objective, backbone: Backbone, packs: Sequence[Pack]
) -> tuple[float, dict[str, torch.Tensor], dict[str, float]]:
    """A step over packs as the loop does it: its loss, every gradient, and the means of its figures."""
    names, parameters = zip(*backbone.parameters.items(), strict=True)
    with torch.no_grad():
        measured = [objective.measure(backbone, pack) for pack in packs] if objective.measures else []
    totals = StepTotals(sum(map(objective.weigh, packs)), tuple(map(sum, zip(*measured, strict=True))))
    loss, figures = 0.0, dict[str, float]()
    gradients = [torch.zeros_like(parameter) for parameter in parameters]
    for pack in packs:
        share = objective.loss(backbone, pack, totals)
        loss += float(share.value.detach())
        for name, value in share.figures.items():
            figures[name] = figures.get(name, 0.0) + value / totals.weight
        found = torch.autograd.grad(share.value, parameters, allow_unused=True)
        for total, part in zip(gradients, found, strict=True):
            if part is not None:
                total += part
    return loss, dict(zip(names, gradients, strict=True)), figures


def load_moved(folder: Path, seed: int, by: float = 0.02) -> PreTrainedModel:
    """The base at `folder` in float32, every weight moved a little."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * by)
    return model


@pytest.fixture(scope="session")
def tokenizer(tiny_base: Path) -> ChatTokenizer:
    return load_tokenizer(tiny_base)


@pytest.fixture(scope="session")
def policy_weights(tiny_base: Path) -> PreTrainedModel:
    return load_moved(tiny_base, seed=1)


@pytest.fixture
def policy(policy_weights: PreTrainedModel) -> PreTrainedModel:
    return copy.deepcopy(policy_weights)


@pytest.fixture(scope="session")
def reference(tiny_base: Path) -> PreTrainedModel:
    return load_moved(tiny_base, seed=2)
