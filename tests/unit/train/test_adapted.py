"""The lean way of training an adapter and transformers' own: one loss, one gradient."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from espalier.core.types import Example, Message
from espalier.nn.adapters import attach_adapters
from espalier.nn.base import load_base
from espalier.nn.lora import LoraSpec
from espalier.tokens.mask import tokenize
from espalier.tokens.pack import rectangle
from espalier.train.adapted import AdaptedLlama, AdaptedTransformer, adapted, lean_shape
from espalier.train.loop import Trainable


def _examples() -> list[Example]:
    return [
        Example(str(n), [Message("user", "Say it. " * (1 + n % 3)), Message("assistant", f"<n>{n}</n>")])
        for n in range(7)
    ]


SPECS = [
    LoraSpec(rank=4, alpha=8),
    LoraSpec(rank=2, alpha=8, targets=("q_proj", "v_proj")),
    LoraSpec(rank=4, alpha=8, targets=("down_proj",), rslora=True),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: "+".join(spec.targets))
def test_the_lean_way_equals_transformers(tiny_base: Path, spec: LoraSpec) -> None:
    base = load_base(f"path:{tiny_base}")
    adapters = attach_adapters(base.model, spec, seed=0)
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for layer in adapters.layers.values():
            layer.b.normal_(0, 0.1, generator=draw)  # a fresh adapter changes nothing, which would prove little
    shape = lean_shape(base.config)
    assert shape is not None
    lean: Trainable = AdaptedLlama(base, adapters, shape, torch.float32)
    general: Trainable = AdaptedTransformer(base, adapters)
    batch = rectangle([tokenize(base.tokenizer, e, context_tokens=400) for e in _examples()])
    weights = torch.from_numpy(batch.weights / batch.weights.sum())
    assert lean.parameters.keys() == general.parameters.keys()
    ours, theirs = lean.loss(batch, weights), general.loss(batch, weights)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    mine = torch.autograd.grad(ours, list(lean.parameters.values()))
    wanted = torch.autograd.grad(theirs, list(general.parameters.values()))
    for name, one, other in zip(lean.parameters, mine, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6, msg=name)


def test_dropout_goes_through_transformers_code(tiny_base: Path) -> None:
    base = load_base(f"path:{tiny_base}")
    adapters = attach_adapters(base.model, LoraSpec(rank=2, dropout=0.1), seed=0)
    assert isinstance(adapted(base, adapters, torch.float32), AdaptedTransformer)


@pytest.mark.parametrize(
    "change",
    [{"hidden_act": "gelu"}, {"attention_bias": True}, {"model_type": "mistral"}],
    ids=lambda change: next(iter(change)),
)
def test_a_base_the_lean_forward_does_not_know_is_left_to_transformers(
    tiny_base: Path, change: dict[str, object]
) -> None:
    plain = load_base(f"path:{tiny_base}").config.to_dict()
    assert lean_shape(SimpleNamespace(**plain)) is not None
    assert lean_shape(SimpleNamespace(**plain | change)) is None
