from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.unit.nn.adapterwork import logits, stir
from torch import Tensor, nn
from torch.nn import functional

from espalier.core.errors import DigestMismatch, EspalierError, InvalidInput, NotFound, UnsupportedModel
from espalier.nn.adapters import attach_adapters, attach_stored, read_adapter, save_adapter
from espalier.nn.base import LoadedBase, load_base, outline_base
from espalier.nn.importing import Imported, import_adapter
from espalier.nn.importspec import ImportSpec
from espalier.nn.lora import LoraSpec
from espalier.testing.tiny import make_tiny_base

# peft 0.21 reads a property that transformers 5.23 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

Q0 = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def outline(tiny_folder: Path) -> LoadedBase:
    return outline_base(f"path:{tiny_folder}")


@pytest.fixture
def theirs(tiny_folder: Path, tmp_path: Path) -> Path:
    """What peft writes, with logits of its own beside."""
    return _write_peft(tiny_folder, tmp_path / "theirs", r=3, lora_alpha=6, target_modules=["q_proj", "up_proj"])


def _write_peft(tiny_folder: Path, folder: Path, **options: Any) -> Path:
    config = peft.LoraConfig(task_type="CAUSAL_LM", **options)
    model = peft.get_peft_model(load_base(f"path:{tiny_folder}").model, config).eval()
    stir(p for p in model.parameters() if p.requires_grad)
    model.save_pretrained(folder)
    torch.save(logits(model), folder / "logits")
    return folder


def _rewrite(folder: Path, change: Any) -> None:
    state = change(load_file(folder / "adapter_model.safetensors"))
    (folder / "adapter_model.safetensors").unlink()
    save_file(state, folder / "adapter_model.safetensors")


def _set(folder: Path, **options: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | options))


def _import(source: Path, outline: LoadedBase, folder: Path, **options: Any) -> Imported:
    return import_adapter(source, outline, folder, ImportSpec(**options))


def _same(theirs: Path, ours: Path, tiny_folder: Path) -> None:
    base = load_base(f"path:{tiny_folder}")
    from espalier.nn.adapterfiles import read_stored

    attach_stored(base.model, read_stored(ours, base))
    torch.testing.assert_close(logits(base.model), torch.load(theirs / "logits"), rtol=1e-5, atol=2e-5)


class TestPeft:
    def test_an_outline_says_of_a_base_what_loading_it_says(self, outline: LoadedBase, base: LoadedBase) -> None:
        assert (outline.base_digest, outline.tokenizer_digest) == (base.base_digest, base.tokenizer_digest)
        assert all(p.is_meta for p in outline.model.parameters())

    @pytest.mark.parametrize(
        "options",
        [
            {"use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.up_proj": 9}},
            {"use_dora": True, "lora_dropout": 0.1},
            {"layers_to_transform": [1]},
        ],
        ids=["patterns", "dora", "one layer"],
    )
    def test_a_folder_of_peft_comes_in_with_the_same_logits_and_its_origin(
        self, outline: LoadedBase, tiny_folder: Path, tmp_path: Path, options: dict[str, Any]
    ) -> None:
        theirs = _write_peft(
            tiny_folder, tmp_path / "t", r=3, lora_alpha=6, target_modules=["q_proj", "up_proj"], **options
        )
        found = _import(theirs, outline, tmp_path / "ours")
        _same(theirs, tmp_path / "ours", tiny_folder)
        assert found.format == "peft"
        assert found.adapter.origin["imported"]["from"] == "t"
        assert found.adapter.origin["base_digest"] == outline.base_digest
        assert any("your word" in note for note in found.notes)

    @pytest.mark.parametrize(
        "rename",
        [
            lambda key: key.replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.default."),
            lambda key: key.removeprefix("base_model.model."),
            lambda key: "base_model.model." + key,
            lambda key: "module." + key.replace("layers.", "layers._checkpoint_wrapped_module."),
            lambda key: "_fsdp_wrapped_module._orig_mod." + key,
            lambda key: key.replace("base_model.model.model.", "base_model.model.language_model.model."),
            lambda key: key.replace("base_model.model.model.", ""),
            lambda key: key.removesuffix(".weight"),
        ],
        ids=["default", "no prefix", "twice", "deepspeed", "fsdp", "multimodal", "bare", "no weight"],
    )
    def test_other_trainers_names_mean_the_same_layers(
        self, outline: LoadedBase, tiny_folder: Path, tmp_path: Path, theirs: Path, rename: Any
    ) -> None:
        _rewrite(theirs, lambda state: {rename(key): tensor for key, tensor in state.items()})
        _import(theirs, outline, tmp_path / "ours")
        _same(theirs, tmp_path / "ours", tiny_folder)

    def test_a_pickle_of_tensors_alone_is_opened(
        self, outline: LoadedBase, tiny_folder: Path, tmp_path: Path, theirs: Path
    ) -> None:
        state = load_file(theirs / "adapter_model.safetensors")
        (theirs / "adapter_model.safetensors").unlink()
        torch.save(state, theirs / "adapter_model.bin")
        _import(theirs, outline, tmp_path / "ours")
        _same(theirs, tmp_path / "ours", tiny_folder)

    def test_a_pickle_with_more_in_it_is_refused_unrun(self, outline: LoadedBase, tmp_path: Path, theirs: Path) -> None:
        class Trap:
            def __reduce__(self) -> Any:
                return Path.touch, (tmp_path / "ran",)

        (theirs / "adapter_model.safetensors").unlink()
        (theirs / "adapter_model.bin").write_bytes(pickle.dumps({"weights": Trap()}))
        with pytest.raises(UnsupportedModel, match="could run code") as caught:
            _import(theirs, outline, tmp_path / "ours")
        assert "safetensors" in caught.value.hint
        assert not (tmp_path / "ran").exists()
        assert not (tmp_path / "ours").exists()

    def test_what_was_imported_is_served_merged_and_imported_again(
        self, outline: LoadedBase, base: LoadedBase, tmp_path: Path, theirs: Path
    ) -> None:
        _import(theirs, outline, tmp_path / "ours")
        assert len(read_adapter(tmp_path / "ours", base).layers) == 4
        again = _import(tmp_path / "ours", outline, tmp_path / "again")
        assert again.adapter.origin["imported"]["from"] == "ours"
        one, two = (tmp_path / name / "adapter_model.safetensors" for name in ("ours", "again"))
        assert one.read_bytes() == two.read_bytes()

    def test_an_adapter_of_another_base_of_ours_is_refused(
        self, outline: LoadedBase, base: LoadedBase, tmp_path: Path
    ) -> None:
        save_adapter(tmp_path / "ours", attach_adapters(base.model, LoraSpec(rank=2), seed=0), base)
        other = outline_base(f"path:{make_tiny_base(tmp_path / 'other', seed=9)}")
        with pytest.raises(DigestMismatch):
            _import(tmp_path / "ours", other, tmp_path / "again")


def _with(name: str, tensor: Tensor) -> Any:
    return lambda state: state | {name: tensor}


def _without(end: str) -> Any:
    return lambda state: {key: tensor for key, tensor in state.items() if not key.endswith(end)}


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a layer the base lacks": (_with(f"{Q0.replace('layers.0', 'layers.7')}.lora_A.weight", torch.ones(3, 48)), {},
                               "has no lora_B"),
    "a name the base lacks": (lambda s: {k.replace("q_proj", "Wq"): t for k, t in s.items()},
                              {"target_modules": ["Wq", "up_proj"]}, "which the base lacks"),
    "half a layer": (_without("q_proj.lora_B.weight"), {}, "has no lora_B"),
    "another rank": (lambda s: s, {"r": 4}, "has rank 3, adapter_config.json says 4"),
    "ranks that differ": (_with(f"{Q0}.lora_B.weight", torch.ones(48, 2)), {}, "A has rank 3, B has 2"),
    "another width": (_with(f"{Q0}.lora_A.weight", torch.ones(3, 64)), {}, "is 48 x 48 in the base"),
    "not finite": (_with(f"{Q0}.lora_A.weight", torch.full((3, 48), torch.nan)), {}, "infinities or NaN"),
    "whole numbers": (_with(f"{Q0}.lora_A.weight", torch.ones(3, 48, dtype=torch.int8)), {}, "no matrix"),
    "a bias": (_with("base_model.model.model.layers.0.self_attn.q_proj.bias", torch.ones(48)), {}, "the bias"),
    "a new vocabulary": (_with("base_model.model.model.embed_tokens.weight", torch.ones(300, 48)), {},
                         "300 rows where the base has 288"),
    "the same vocabulary": (_with("base_model.model.lm_head.weight", torch.ones(288, 48)), {}, "would be left out"),
    "a layer trained whole": (_with("base_model.model.model.norm.modules_to_save.weight", torch.ones(48)), {},
                              "trained .* whole"),
    "something else": (_with("optimizer.step", torch.ones(1)), {}, "no part of a LoRA"),
    "modules_to_save": (lambda s: s, {"modules_to_save": ["embed_tokens"]}, "modules_to_save"),
    "biases by configuration": (lambda s: s, {"bias": "lora_only"}, "bias='lora_only'"),
    "another method": (lambda s: s, {"peft_type": "IA3"}, "a IA3 adapter"),
    "no alpha": (lambda s: s, {"lora_alpha": None}, "not usable"),
    "a target without weights": (lambda s: s, {"target_modules": ["q_proj", "up_proj", "k_proj"]},
                                 "targets k_proj, which has no weights"),
    "two adapters": (lambda s: {k.replace("A.w", "A.one.w").replace("B.w", "B.two.w"): t for k, t in s.items()}, {},
                     "several adapters: one, two"),
    "DoRA without magnitudes": (lambda s: s, {"use_dora": True}, "no magnitude"),
    "magnitudes without DoRA": (_with(f"{Q0}.lora_magnitude_vector", torch.ones(48)), {}, "knows no DoRA"),
    "the head": (lambda s: {k.replace("model.layers.0.self_attn.q_proj", "lm_head"): t for k, t in s.items()
                            if "layers.0.self_attn" in k}, {"target_modules": ["lm_head"]}, "the base's head"),
    "an embedding": (lambda s: {k.replace("layers.0.self_attn.q_proj", "embed_tokens"): t for k, t in s.items()
                                if "layers.0.self_attn" in k}, {"target_modules": ["embed_tokens"]}, "a Embedding"),
    "no LoRA at all": (lambda s: {"model.norm.weight": torch.ones(48)}, {}, "no LoRA weights"),
    "an unknown configuration": (lambda s: s, {"peft_type": "OFT"}, "a OFT adapter"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_taken_over_whole_is_refused_with_the_reason(
    case: str, outline: LoadedBase, tmp_path: Path, theirs: Path
) -> None:
    change, options, message = REFUSED[case]
    _rewrite(theirs, change)
    _set(theirs, **options)
    with pytest.raises(InvalidInput, match=message):
        _import(theirs, outline, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_a_tokenizer_with_more_tokens_than_the_base_has_rows_is_refused(
    outline: LoadedBase, tiny_folder: Path, tmp_path: Path, theirs: Path
) -> None:
    tokenizer = json.loads((tiny_folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"] += [
        {"id": 288 + i, "content": f"<extra{i}>", "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True} for i in range(3)
    ]  # fmt: skip
    (theirs / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UnsupportedModel, match="291 tokens, the base's embedding 288 rows"):
        _import(theirs, outline, tmp_path / "ours")


def test_files_that_are_none_are_refused(outline: LoadedBase, tmp_path: Path, theirs: Path) -> None:
    with pytest.raises(NotFound, match="no file or folder"):
        _import(tmp_path / "nowhere", outline, tmp_path / "ours")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match="no weights in"):
        _import(tmp_path / "empty", outline, tmp_path / "ours")
    for name in ("one.pt", "two.pt"):
        (tmp_path / "empty" / name).write_bytes(b"x")
    with pytest.raises(InvalidInput, match=r"several files of weights: one\.pt, two\.pt"):
        _import(tmp_path / "empty", outline, tmp_path / "ours")
    with pytest.raises(EspalierError):
        _import(tmp_path / "empty" / "one.pt", outline, tmp_path / "ours", alpha=4)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InvalidInput, match="not a state dict"):
        _import(tmp_path / "list.pt", outline, tmp_path / "ours", alpha=4)
    (theirs / "adapter_config.json").write_text('{"r": 3}')
    with pytest.raises(InvalidInput, match="neither PEFT's nor MLX's"):
        _import(theirs, outline, tmp_path / "ours")


@settings(max_examples=60)
@given(data=st.data())
def test_no_damage_to_a_configuration_or_a_key_brings_anything_but_a_clear_refusal(
    data: st.DataObject, outline: LoadedBase, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    adapters = {f"{Q0}.lora_A.weight": torch.ones(2, 48), f"{Q0}.lora_B.weight": torch.ones(48, 2)}
    name = data.draw(st.sampled_from(sorted(adapters)))
    junk = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.integers())
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    key = data.draw(st.sampled_from([*config, "rank_pattern", "alpha_pattern", "use_dora", "lora_dropout", "bias"]))
    if data.draw(st.booleans()):
        config[key] = data.draw(junk)
    else:
        tensor = adapters.pop(name)
        adapters[data.draw(st.text("abcAB._lora", max_size=30)) or "x"] = tensor
    save_file(adapters, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    try:
        imported = _import(folder, outline, folder / "ours")
    except EspalierError as error:
        assert error.message
        assert not (folder / "ours").exists()
    else:
        assert list(imported.adapter.layers) == ["model.layers.0.self_attn.q_proj"]


class _LoralibLinear(nn.Module):
    """microsoft/LoRA's layers.Linear and MergedLinear, from their documentation: parameters and what they add."""

    def __init__(self, inputs: int, outputs: int, rank: int, enabled: tuple[bool, ...] = ()) -> None:
        super().__init__()
        parts = sum(enabled) if enabled else 1
        self.enabled, self.outputs, self.rank = enabled, outputs, rank
        rows = outputs // len(enabled) * parts if enabled else outputs
        self.lora_A = nn.Parameter(torch.randn(rank * parts, inputs) * 0.2)
        self.lora_B = nn.Parameter(torch.randn(rows, rank) * 0.2)

    def delta(self, alpha: float) -> Tensor:
        if not self.enabled:
            return self.lora_B @ self.lora_A * (alpha / self.rank)
        groups = sum(self.enabled)
        made = functional.conv1d(self.lora_A[None], self.lora_B[:, :, None], groups=groups)[0] * (alpha / self.rank)
        whole = made.new_zeros(len(self.enabled), self.outputs // len(self.enabled), made.shape[1])
        whole[list(self.enabled)] = made.view(groups, -1, made.shape[1])
        return whole.view(self.outputs, -1)


class _Fused(nn.Module):
    """A base whose q, k and v are one layer, or three."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        names = ("qkv_proj",) if fused else ("q_proj", "k_proj", "v_proj")
        block = nn.Module()
        for name in names:
            setattr(block, name, nn.Linear(8, 24 // len(names), bias=False))
        self.layers = nn.ModuleList([nn.ModuleDict({"attn": block})])
        self.embed = nn.Embedding(5, 8)

    def get_input_embeddings(self) -> nn.Module:
        return self.embed

    def get_output_embeddings(self) -> None:
        return None


class TestLoralib:
    @pytest.mark.parametrize("kind", ["plain", "nested", "convolution"])
    def test_a_state_dict_comes_in_when_its_alpha_is_said(self, outline: LoadedBase, tmp_path: Path, kind: str) -> None:
        torch.manual_seed(0)
        layer = _LoralibLinear(48, 96, 4)
        state: Any = {f"model.layers.1.mlp.up_proj.{name}": p.detach() for name, p in layer.named_parameters()}
        if kind == "convolution":
            state = {name: tensor[:, :, None] for name, tensor in state.items()}
        torch.save({"state_dict": state, "epoch": 3} if kind == "nested" else state, tmp_path / "lora.pt")
        with pytest.raises(InvalidInput, match="does not say its alpha"):
            _import(tmp_path / "lora.pt", outline, tmp_path / "ours")
        found = _import(tmp_path / "lora.pt", outline, tmp_path / "ours", alpha=10)
        assert found.format == "loralib"
        (name,) = found.adapter.layers
        assert name == "model.layers.1.mlp.up_proj"
        torch.testing.assert_close(found.adapter.layers[name].delta, layer.delta(10).detach())
        config = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())
        assert (config["r"], config["lora_alpha"]) == (4, 10)

    @pytest.mark.parametrize("enabled", [(True, False, True), (True, True, True), (False, True, False)])
    @pytest.mark.parametrize("fused", [True, False])
    def test_a_fused_layer_stands_on_one_layer_or_on_three(
        self, outline: LoadedBase, tmp_path: Path, enabled: tuple[bool, ...], fused: bool
    ) -> None:
        from dataclasses import replace

        torch.manual_seed(0)
        layer = _LoralibLinear(8, 24, 2, enabled)
        save_file(
            {f"layers.0.attn.qkv_proj.{n}": p.detach() for n, p in layer.named_parameters()}, tmp_path / "l.safetensors"
        )
        model: Any = _Fused(fused)
        base = replace(outline, model=model)
        found = _import(tmp_path / "l.safetensors", base, tmp_path / "ours", alpha=6, enabled=enabled).adapter
        whole = layer.delta(6).detach()
        if fused:
            torch.testing.assert_close(found.layers["layers.0.attn.qkv_proj"].delta, whole)
        else:
            for part, name, on in zip(whole.chunk(3), ("q_proj", "k_proj", "v_proj"), enabled, strict=True):
                assert (f"layers.0.attn.{name}" in found.layers) == on
                if on:
                    torch.testing.assert_close(found.layers[f"layers.0.attn.{name}"].delta, part)

    def test_a_fused_layer_whose_parts_are_not_said_is_refused(self, outline: LoadedBase, tmp_path: Path) -> None:
        layer = _LoralibLinear(48, 144, 2, (True, False, True))
        state = {f"model.layers.0.self_attn.qkv_proj.{n}": p.detach() for n, p in layer.named_parameters()}
        save_file(state, tmp_path / "l.safetensors")
        with pytest.raises(InvalidInput, match="which the base lacks"):
            _import(tmp_path / "l.safetensors", outline, tmp_path / "ours", alpha=6)
        with pytest.raises(InvalidInput, match="2 fused parts, enabled are 1 of 3") as caught:
            _import(tmp_path / "l.safetensors", outline, tmp_path / "ours", alpha=6, enabled=(True, False, False))
        assert "enable_lora" in caught.value.hint
        with pytest.raises(InvalidInput, match="is 24 x 48 in the base, the adapter is for 48 x 48"):  # grouped queries
            _import(tmp_path / "l.safetensors", outline, tmp_path / "ours", alpha=6, enabled=(True, False, True))


@pytest.mark.parametrize("dora", [False, True])
def test_a_folder_of_mlx_comes_in(outline: LoadedBase, tmp_path: Path, dora: bool) -> None:
    torch.manual_seed(0)
    name = "model.layers.0.mlp.down_proj"
    a, b = torch.randn(96, 4), torch.randn(4, 48)
    state = {f"{name}.lora_a": a, f"{name}.lora_b": b} | ({f"{name}.m": torch.ones(48)} if dora else {})
    save_file(state, tmp_path / "adapters.safetensors")
    config = {"fine_tune_type": "lora", "lora_parameters": {"rank": 4, "scale": 20.0, "dropout": 0.1}, "model": "a/b"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    found = _import(tmp_path, outline, tmp_path / "ours")
    torch.testing.assert_close(found.adapter.layers[name].delta, 20.0 * (a @ b).t())
    assert (found.format, found.adapter.spec.dora, found.adapter.spec.dropout) == ("mlx", dora, 0.1)
    assert found.adapter.origin["imported"]["stated_base"] == "a/b"
    shutil.rmtree(tmp_path / "ours")
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"lora_parameters": {"rank": 4}}))
    with pytest.raises(InvalidInput, match="does not say the scale"):
        _import(tmp_path, outline, tmp_path / "ours")
