from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import peft
import pytest
import torch
from torch import nn

from espalier.core.errors import DigestMismatch, InvalidInput, NotFound, UnsupportedModel
from espalier.nn.adapters import attach_adapters, read_adapter, save_adapter
from espalier.nn.base import LoadedBase, load_base
from espalier.nn.lora import LoraSpec
from espalier.testing.tiny import make_tiny_base

# peft 0.21 reads a property that transformers 5.23 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

IDS = torch.arange(40).reshape(2, 20) * 7 % 288
SPECS = [
    LoraSpec(rank=4, alpha=8),
    LoraSpec(rank=3, alpha=5, targets=("q_proj", "down_proj")),
    LoraSpec(rank=16, alpha=7, rslora=True),
]


def _stir(parameters: list[nn.Parameter]) -> None:
    """B starts at zero, where half of the gradients vanish: give every weight a value."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in parameters:
            parameter.normal_(std=0.05, generator=generator)


def _loss(model: nn.Module) -> torch.Tensor:
    return model(input_ids=IDS, labels=IDS).loss


@pytest.mark.parametrize("spec", SPECS, ids=["all", "two", "rslora"])
def test_what_is_saved_loads_in_peft_with_the_same_logits_and_greedy_tokens(
    base: LoadedBase, tiny_folder: Path, tmp_path: Path, spec: LoraSpec
) -> None:
    adapters = attach_adapters(base.model, spec, seed=1)
    _stir(adapters.parameters())
    save_adapter(tmp_path, adapters, base)
    wrapped = peft.PeftModel.from_pretrained(load_base(f"path:{tiny_folder}").model, tmp_path)
    with torch.inference_mode():
        ours, theirs = base.model(input_ids=IDS).logits, wrapped(input_ids=IDS).logits
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        ask = {"input_ids": IDS[:1], "max_new_tokens": 24, "do_sample": False}
        assert base.model.generate(**ask).tolist() == wrapped.generate(**ask).tolist()
        bare = load_base(f"path:{tiny_folder}").model(input_ids=IDS).logits
        assert not torch.allclose(bare, theirs, atol=1e-2)


@pytest.mark.parametrize("spec", SPECS, ids=["all", "two", "rslora"])
def test_a_training_step_gives_pefts_gradients(
    base: LoadedBase, tiny_folder: Path, tmp_path: Path, spec: LoraSpec
) -> None:
    adapters = attach_adapters(base.model, spec, seed=1)
    _stir(adapters.parameters())
    save_adapter(tmp_path, adapters, base)
    wrapped = peft.PeftModel.from_pretrained(load_base(f"path:{tiny_folder}").model, tmp_path, is_trainable=True)
    ours, theirs = _loss(base.model), _loss(wrapped)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    ours.backward()
    theirs.backward()
    found = {name: tensor.grad for name, tensor in wrapped.named_parameters() if tensor.grad is not None}
    assert len(found) == 2 * len(adapters.layers)
    for name, layer in adapters.layers.items():
        for part, tensor in (("A", layer.a), ("B", layer.b)):
            reference = found[f"base_model.model.{name}.lora_{part}.default.weight"]
            torch.testing.assert_close(tensor.grad, reference, rtol=1e-4, atol=1e-6)
    assert all(p.grad is None for name, p in base.model.named_parameters() if not name.endswith((".a", ".b")))


def test_a_start_depends_on_seed_and_layer_name_alone(tiny_folder: Path) -> None:
    def start(seed: int, *targets: str) -> dict[str, torch.Tensor]:
        model = load_base(f"path:{tiny_folder}").model
        return attach_adapters(model, LoraSpec(rank=2, targets=targets), seed).state()

    one, two, other = start(3, "q_proj"), start(3, "up_proj", "q_proj"), start(4, "q_proj")
    assert all(torch.equal(one[name], two[name]) for name in one)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    assert not torch.equal(one[name], other[name])
    assert not torch.equal(one[name], one[name.replace("layers.0", "layers.1")])


def test_the_same_weights_give_the_same_bytes(base: LoadedBase, tmp_path: Path) -> None:
    adapters = attach_adapters(base.model, LoraSpec(rank=2), seed=1)
    save_adapter(tmp_path / "one", adapters, base, dataset="d1")
    state = copy.deepcopy(adapters.state())
    _stir(adapters.parameters())
    adapters.load_state(state)
    save_adapter(tmp_path / "two", adapters, base, dataset="d1")
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["adapter_config.json", "adapter_model.safetensors", "espalier.json"]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_peft_config_names_no_folder_of_this_machine(base: LoadedBase, tmp_path: Path) -> None:
    save_adapter(tmp_path, attach_adapters(base.model, LoraSpec(rank=2), seed=1), base)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] is None


def test_a_target_that_no_layer_has_is_refused_with_the_nearest_name(base: LoadedBase) -> None:
    with pytest.raises(InvalidInput, match="q_prj") as caught:
        attach_adapters(base.model, LoraSpec(targets=("q_prj",)), seed=0)
    assert "q_proj" in caught.value.hint


def test_a_target_that_is_no_linear_layer_is_refused(base: LoadedBase) -> None:
    with pytest.raises(UnsupportedModel, match="Embedding"):
        attach_adapters(base.model, LoraSpec(targets=("embed_tokens",)), seed=0)


class TestReading:
    @pytest.fixture
    def saved(self, base: LoadedBase, tiny_folder: Path, tmp_path: Path) -> Path:
        folder = tmp_path / "adapter"
        save_adapter(folder, attach_adapters(base.model, LoraSpec(rank=2, alpha=6), seed=1), base)
        return folder

    @pytest.fixture
    def fresh(self, tiny_folder: Path) -> LoadedBase:
        return load_base(f"path:{tiny_folder}")

    def test_weights_come_back_with_the_scale_in_b(self, saved: Path, fresh: LoadedBase) -> None:
        weights = read_adapter(saved, fresh)
        assert weights.spec.rank == 2
        assert weights.spec.scale == 3
        assert len(weights.layers) == 14
        a, b = weights.layers["model.layers.0.mlp.up_proj"]
        assert (a.shape, b.shape) == ((2, 48), (96, 2))

    def test_another_base_is_refused_naming_both_digests(self, saved: Path, tmp_path: Path, base: LoadedBase) -> None:
        other = load_base(f"path:{make_tiny_base(tmp_path / 'other', seed=9)}")
        with pytest.raises(DigestMismatch) as caught:
            read_adapter(saved, other)
        assert base.base_digest[:12] in caught.value.message
        assert other.base_digest[:12] in caught.value.message

    def test_another_template_is_refused(self, saved: Path, tiny_folder: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(tiny_folder, tmp_path / "template")
        template = folder / "chat_template.jinja"
        template.write_text(template.read_text().replace("assistant", "bot"))
        with pytest.raises(DigestMismatch, match="chat template"):
            read_adapter(saved, load_base(f"path:{folder}"))

    def test_a_foreign_adapter_needs_to_be_asked_for(self, saved: Path, fresh: LoadedBase) -> None:
        (saved / "espalier.json").unlink()
        with pytest.raises(NotFound, match=r"espalier\.json"):
            read_adapter(saved, fresh)
        assert read_adapter(saved, fresh, require_origin=False).origin == {}

    @pytest.mark.parametrize("option", [{"modules_to_save": ["lm_head"]}, {"fan_in_fan_out": True}, {"bias": "all"}])
    def test_an_option_we_would_leave_out_is_refused(
        self, saved: Path, fresh: LoadedBase, option: dict[str, object]
    ) -> None:
        path = saved / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **option}))
        with pytest.raises(UnsupportedModel, match=next(iter(option))):
            read_adapter(saved, fresh)

    def test_a_wrong_rank_and_a_broken_file_are_refused(self, saved: Path, fresh: LoadedBase) -> None:
        path = saved / "adapter_config.json"
        config = path.read_text()
        path.write_text(json.dumps({**json.loads(config), "r": 3}))
        with pytest.raises(InvalidInput, match="is wanted"):
            read_adapter(saved, fresh)
        path.write_text(config)
        (saved / "adapter_model.safetensors").write_bytes(b"nonsense")
        with pytest.raises(InvalidInput, match="not a safetensors file"):
            read_adapter(saved, fresh)
        path.write_text("{")
        with pytest.raises(InvalidInput, match="not JSON"):
            read_adapter(saved, fresh)
