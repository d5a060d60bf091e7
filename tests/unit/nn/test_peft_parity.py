"""Adapters against the real peft package: what we write it reads, what it writes we read, to the same numbers."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import peft
import pytest
import torch
from tests.unit.nn.adapterwork import logits, loss, stir
from torch import nn
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from espalier.core.errors import InvalidInput, UnsupportedModel
from espalier.nn.adapterfiles import read_stored
from espalier.nn.adapters import attach_adapters, attach_stored, read_adapter, save_adapter
from espalier.nn.base import LoadedBase, load_base
from espalier.nn.lora import LoraSpec
from espalier.testing.tiny import make_tiny_base

# peft 0.21 reads a property that transformers 5.23 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

SPECS = {
    "plain": LoraSpec(rank=4, alpha=8),
    "rslora": LoraSpec(rank=16, alpha=7, rslora=True),
    "patterns": LoraSpec(rank=4, alpha=8, ranks={"q_proj": 2, "down_proj": 7}, alphas={"down_proj": 3}),
    "rslora patterns": LoraSpec(rank=4, alpha=8, ranks={"v_proj": 9}, alphas={"q_proj": 3}, rslora=True),
    "one layer by name": LoraSpec(rank=2, ranks={"model.layers.1.self_attn.o_proj": 5}),
    "last layer": LoraSpec(rank=3, alpha=5, targets=("q_proj", "up_proj"), layers=1),
    "first layer": LoraSpec(rank=3, alpha=5, layers=(0, 0)),
    "dora": LoraSpec(rank=4, alpha=8, dora=True),
    "dora patterns": LoraSpec(rank=4, alpha=9, dora=True, ranks={"k_proj": 2}, rslora=True),
    "dropout": LoraSpec(rank=4, alpha=8, dropout=0.25),
}


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base of each family; Qwen2's q, k and v have biases."""
    place = make_tiny_base(tmp_path_factory.mktemp(request.param))
    if request.param == "qwen2":
        config = json.loads((place / "config.json").read_text())
        kept = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                "num_key_value_heads", "max_position_embeddings", "eos_token_id", "pad_token_id")  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = Qwen2ForCausalLM(Qwen2Config(**{name: config[name] for name in kept}, tie_word_embeddings=True))
        stir(model.parameters(), std=0.3)
        model.save_pretrained(place)
    return place


@pytest.fixture
def base(folder: Path) -> LoadedBase:
    return load_base(f"path:{folder}")


def _wrapped(folder: Path, adapter: Path, *, train: bool = False) -> PreTrainedModel:
    return peft.PeftModel.from_pretrained(load_base(f"path:{folder}").model, adapter, is_trainable=train)


@pytest.mark.parametrize("name", SPECS)
def test_peft_reads_ours_to_the_same_logits_and_gradients(
    name: str, base: LoadedBase, folder: Path, tmp_path: Path
) -> None:
    adapters = attach_adapters(base.model, SPECS[name], seed=1)
    stir(adapters.parameters())
    save_adapter(tmp_path, adapters, base)
    wrapped = _wrapped(folder, tmp_path, train=True).eval()  # evaluating, so that peft drops nothing
    torch.testing.assert_close(logits(base.model), logits(wrapped), rtol=1e-5, atol=2e-5)
    loss(base.model).backward()
    loss(wrapped).backward()
    theirs = {
        key.replace(".default", "").removesuffix(".weight"): tensor.grad
        for key, tensor in wrapped.named_parameters()
        if tensor.grad is not None
    }
    ours = {f"base_model.model.{key}".removesuffix(".weight"): p.grad for key, p in adapters.named_parameters().items()}
    assert ours.keys() == theirs.keys()
    for key, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[key], rtol=1e-4, atol=2e-6, msg=key)


@pytest.mark.parametrize("name", SPECS)
def test_we_read_what_peft_wrote_and_peft_reads_it_back(name: str, folder: Path, tmp_path: Path) -> None:
    spec = SPECS[name]
    config = peft.LoraConfig(
        r=spec.rank, lora_alpha=spec.alpha, lora_dropout=spec.dropout, use_rslora=spec.rslora, use_dora=spec.dora,
        target_modules=list(spec.targets) if len(spec.targets) > 1 else spec.targets[0], task_type="CAUSAL_LM",
        rank_pattern=dict(spec.ranks), alpha_pattern=dict(spec.alphas),
        layers_to_transform=None if spec.layers is None or len(spec.targets) == 1 else [1],
    )  # fmt: skip
    theirs = peft.get_peft_model(load_base(f"path:{folder}").model, config).eval()
    stir(p for p in theirs.parameters() if p.requires_grad)
    theirs.save_pretrained(tmp_path / "theirs")
    expected = logits(theirs)

    base = load_base(f"path:{folder}")
    stored = read_stored(tmp_path / "theirs", base, require_origin=False)
    adapters = attach_stored(base.model, stored)
    torch.testing.assert_close(logits(base.model), expected, rtol=1e-5, atol=2e-5)
    save_adapter(tmp_path / "ours", adapters, base)
    torch.testing.assert_close(logits(_wrapped(folder, tmp_path / "ours")), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SPECS)
def test_what_is_served_adds_up_to_the_trained_layer(name: str, base: LoadedBase, tmp_path: Path) -> None:
    adapters = attach_adapters(base.model, SPECS[name], seed=1)
    stir(adapters.parameters())
    save_adapter(tmp_path, adapters, base)
    served = read_adapter(tmp_path, base)
    assert served.rank == max(layer.rank for layer in adapters.layers.values())
    for key, layer in adapters.layers.items():
        x = torch.randn(3, layer.a.shape[1])
        a, b = served.layers[key]
        with torch.no_grad():
            bias = 0 if layer.base.bias is None else layer.base.bias
            own = (layer.base(x) - bias) * served.gains.get(key, torch.ones(1)) + bias
            torch.testing.assert_close(own + x @ a.t() @ b.t(), layer.eval()(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga"])
def test_an_adapter_whose_start_changed_its_base_is_refused_with_the_way_out(
    start: str, base: LoadedBase, tmp_path: Path
) -> None:
    save_adapter(tmp_path, attach_adapters(base.model, LoraSpec(), seed=0), base)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "init_lora_weights": start}))
    with pytest.raises(UnsupportedModel, match=start) as caught:
        read_adapter(tmp_path, base)
    assert "path_initial_model_for_weight_conversion" in caught.value.hint


def test_a_dora_whose_magnitudes_are_missing_is_refused(base: LoadedBase, tmp_path: Path) -> None:
    save_adapter(tmp_path, attach_adapters(base.model, LoraSpec(), seed=0), base)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_dora": True}))
    with pytest.raises(InvalidInput, match="lacks the magnitudes"):
        read_stored(tmp_path, base)


def test_layers_outside_the_model_and_misspelt_ranks_are_refused(base: LoadedBase) -> None:
    with pytest.raises(InvalidInput, match="the model has 2") as caught:
        attach_adapters(base.model, LoraSpec(layers=(1, 2)), seed=0)
    assert "0 to 1" in caught.value.hint
    with pytest.raises(InvalidInput, match="q_prj") as caught:
        attach_adapters(base.model, LoraSpec(ranks={"q_prj": 3}), seed=0)
    assert "q_proj" in caught.value.hint
    with pytest.raises(ValueError, match="not above 0"):
        LoraSpec(ranks={"q_proj": 0})
    with pytest.raises(ValueError, match="regular expression"):
        LoraSpec(alphas={"q_(": 2})


def test_layers_are_chosen_from_either_end(base: LoadedBase) -> None:
    names = list(attach_adapters(base.model, LoraSpec(layers=1, targets=("q_proj",)), seed=0).layers)
    assert names == ["model.layers.1.self_attn.q_proj"]


def test_dora_starts_as_the_base_itself(base: LoadedBase) -> None:
    before = logits(base.model)
    attach_adapters(base.model, LoraSpec(rank=3, dora=True), seed=0)
    torch.testing.assert_close(logits(base.model), before, rtol=1e-6, atol=1e-4)


def test_an_expression_of_a_stranger_takes_linear_time(base: LoadedBase) -> None:
    spec = LoraSpec(rank=2, ranks={r"(a+)+$|.*layers\.1.*q_proj": 5})
    assert spec.rank_of("model.layers.1.self_attn.q_proj") == 5
    assert spec.rank_of("a" * 5000 + "!") == 2  # hours, with backtracking


class _Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleList([nn.ModuleDict({"proj": nn.Linear(4, 4)}), nn.ModuleDict({"proj": nn.Linear(4, 4)})])


def test_a_gaussian_start_has_its_deviation() -> None:
    adapters = attach_adapters(_Toy(), LoraSpec(rank=4, init="gaussian", targets=("proj",)), seed=3)
    values = torch.cat([layer.a.detach().flatten() for layer in adapters.layers.values()])
    assert 0.15 < float(values.std()) < 0.4
