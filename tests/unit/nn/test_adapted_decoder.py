"""Adapters beside the lean decoder's frozen weights, against PEFT on transformers' own code."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import peft
import pytest
import torch
from tests.unit.nn.families import configs, distance, make_documents, make_model, padded_loss
from tests.unit.nn.test_decoder import packed_loss, shape_of
from torch import Tensor, nn

from espalier.nn.adapters import Adapters, attach_adapters
from espalier.nn.assembly import adapted_decoder, is_covered
from espalier.nn.decoder import LeanDecoder
from espalier.nn.lora import LoraSpec
from espalier.nn.shape import lean_shape
from espalier.tokens.pack import join, lay

# peft 0.21 reads a property that transformers 5.23 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

CONFIGS = configs()
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SPECS = {
    "all": LoraSpec(rank=4, alpha=8),
    "two": LoraSpec(rank=2, alpha=8, targets=("q_proj", "v_proj")),
    "one": LoraSpec(rank=3, alpha=5, targets=("up_proj",), rslora=True),
    "ranks": LoraSpec(rank=4, alpha=8, ranks={"k_proj": 2, "down_proj": 7}, alphas={"v_proj": 3}),
}


def adapt(model: nn.Module, spec: LoraSpec, dtype: torch.dtype, **options: bool) -> tuple[LeanDecoder, Adapters]:
    """Fresh adapters with something in B, so that A has a gradient."""
    adapters = attach_adapters(model, spec, seed=1)
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for layer in adapters.layers.values():
            layer.b.normal_(std=0.1, generator=draw)
    base: Any = SimpleNamespace(model=model, config=model.config)
    return adapted_decoder(base, adapters, shape_of(model.config), dtype, **options), adapters


def reference(model: nn.Module, spec: LoraSpec, adapters: Adapters) -> tuple[nn.Module, dict[str, nn.Parameter]]:
    """PEFT's model with the same adapter, and what it trains by our names."""
    config = peft.LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        target_modules=ALL if spec.targets == ("all-linear",) else list(spec.targets),
        use_rslora=spec.rslora,
        rank_pattern=dict(spec.ranks),
        alpha_pattern=dict(spec.alphas),
    )
    wrapped = peft.get_peft_model(model, config)
    theirs = {
        name.removeprefix("base_model.model.").replace(".default", ""): parameter
        for name, parameter in wrapped.named_parameters()
        if parameter.requires_grad
    }
    with torch.no_grad():
        for name, ours in adapters.named_parameters().items():
            theirs[name].copy_(ours)
    return wrapped.eval(), theirs


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize(
    ("name", "spec"), [*((name, "all") for name in CONFIGS), *(("llama, wide heads", spec) for spec in SPECS)]
)
def test_loss_and_every_gradient_equal_pefts_on_a_padded_batch(name: str, spec: str, recompute: bool) -> None:
    model, documents = make_model(CONFIGS[name]), make_documents()
    plain = copy.deepcopy(model)
    decoder, adapters = adapt(model, SPECS[spec], torch.float32, recompute=recompute)
    wrapped, theirs = reference(plain, SPECS[spec], adapters)
    wanted = padded_loss(wrapped, documents)
    wanted.backward()  # type: ignore[no-untyped-call]
    loss = packed_loss(decoder, [join([lay(documents[i]) for i in members]) for members in ([3, 0], [2, 1])])
    assert distance(loss, wanted.detach()) <= 1e-6
    assert decoder.parameters.keys() == theirs.keys()
    for key, parameter in theirs.items():
        ours = decoder.parameters[key].grad
        assert ours is not None and parameter.grad is not None
        assert distance(ours, parameter.grad) <= 3e-6, key
    assert distance(*(_flat(side) for side in (decoder.parameters, theirs))) <= 1e-6


def test_bf16_adapters_stay_close_to_float32() -> None:
    model, pack = make_model(CONFIGS["qwen 3"]), join([lay(document) for document in make_documents()])
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        decoder, _ = adapt(copy.deepcopy(model), SPECS["all"], dtype)
        found.append((packed_loss(decoder, [pack]), _flat(decoder.parameters)))
    (exact, wanted), (rough, gradients) = found
    assert abs(float(rough - exact)) < 5e-3 * float(exact)
    assert distance(gradients, wanted) < 0.05


def test_the_models_matrices_become_views_of_those_laid_out_and_it_goes_on_working() -> None:
    model = make_model(CONFIGS["llama 3 rotary, biases"])
    ids = torch.tensor([make_documents()[1].ids])
    with torch.no_grad():
        adapters = attach_adapters(model, SPECS["all"], seed=1)
        before = model(input_ids=ids).logits
    base: Any = SimpleNamespace(model=model, config=model.config)
    frozen = [weight for weight in model.parameters() if not weight.requires_grad]
    originals = {weight.untyped_storage().data_ptr(): weight.untyped_storage() for weight in frozen}
    adapted_decoder(base, adapters, shape_of(model.config), torch.bfloat16)
    assert not originals.keys() & {weight.untyped_storage().data_ptr() for weight in frozen}
    layer = model.get_submodule("model.layers.0.self_attn")
    storages = {layer.get_submodule(name).base.weight.untyped_storage().data_ptr() for name in ALL[:3]}
    assert len(storages) == 1
    assert {weight.dtype for name, weight in model.named_parameters() if "base" in name} == {torch.bfloat16}
    with torch.no_grad():
        after = model(input_ids=ids).logits.float()
    assert distance(after, before) < 0.05


def test_an_adapter_on_the_head_is_left_to_the_general_way() -> None:
    model = make_model(CONFIGS["llama, wide heads"])
    shape = lean_shape(model.config)
    assert shape is not None
    assert is_covered(attach_adapters(copy.deepcopy(model), SPECS["two"], seed=0), shape)
    on_head = attach_adapters(model, LoraSpec(rank=2, targets=("q_proj", "lm_head")), seed=0)
    assert not is_covered(on_head, shape)


def _flat(parameters: Any) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in parameters.values()])
