from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tests.unit.nn.adapterwork import logits, stir
from torch import Tensor
from transformers import AutoModelForCausalLM

from espalier.core.errors import DigestMismatch, InvalidInput, MissingExtra, UnsupportedModel
from espalier.nn.adapterfiles import read_stored
from espalier.nn.adapters import attach_adapters, read_adapter, save_adapter
from espalier.nn.base import LoadedBase, load_base
from espalier.nn.combination import CombineSpec
from espalier.nn.combining import combine_adapters
from espalier.nn.export import save_base
from espalier.nn.lora import LoraSpec
from espalier.nn.merging import merge_into_base, merge_layer
from espalier.testing.tiny import make_tiny_base

# peft 0.21 reads a property that transformers 5.23 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

PLAIN = LoraSpec(rank=4, alpha=8)


def _adapter(tiny_folder: Path, folder: Path, spec: LoraSpec = PLAIN, seed: int = 1, quantise: Any = "none") -> Path:
    base = load_base(f"path:{tiny_folder}", quantise=quantise)
    adapters = attach_adapters(base.model, spec, seed=seed)
    stir(adapters.parameters(), seed=seed)
    save_adapter(folder, adapters, base, dataset=f"d{seed}", recipe="r")
    return folder


def _peft_merged(tiny_folder: Path, adapter: Path) -> Any:
    wrapped = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder), adapter)
    return wrapped.merge_and_unload()


class TestIntoTheBase:
    @pytest.mark.parametrize(
        "spec",
        [PLAIN, LoraSpec(rank=4, rslora=True, ranks={"q_proj": 2}), LoraSpec(rank=3, dora=True)],
        ids=["lora", "patterns", "dora"],
    )
    def test_the_merged_base_is_pefts_merge_and_unload(
        self, base: LoadedBase, tiny_folder: Path, tmp_path: Path, spec: LoraSpec
    ) -> None:
        adapter = _adapter(tiny_folder, tmp_path / "adapter", spec)
        digest = merge_into_base(base, adapter, tmp_path / "merged")
        found = load_base(f"path:{tmp_path / 'merged'}")
        assert found.base_digest == digest
        reference = _peft_merged(tiny_folder, adapter)
        for name, weight in reference.named_parameters():
            torch.testing.assert_close(found.model.get_parameter(name), weight, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(logits(found.model), logits(reference), rtol=1e-5, atol=1e-5)

    def test_a_bfloat16_base_is_rounded_once_and_its_merge_says_what_it_is_made_of(
        self, base: LoadedBase, tiny_folder: Path, tmp_path: Path
    ) -> None:
        save_base(tmp_path / "half", base, dtype="bfloat16")
        adapter = _adapter(tmp_path / "half", tmp_path / "adapter")
        halves = load_base(f"path:{tmp_path / 'half'}", dtype="stored")
        stored = read_stored(adapter, halves)
        name = "model.layers.1.mlp.up_proj"
        expected = merge_layer(halves.model.get_submodule(name).weight, stored.layers[name]).to(torch.bfloat16)
        merge_into_base(halves, adapter, tmp_path / "merged")
        found = load_base(f"path:{tmp_path / 'merged'}", dtype="stored")
        assert torch.equal(found.model.get_submodule(name).weight, expected)
        origin = json.loads((tmp_path / "merged" / "espalier.json").read_text())
        assert origin["base_digest"] == halves.base_digest
        assert origin["dataset"] == "d1"
        assert len(origin["merged"]["weights_sha256"]) == 64

    def test_what_was_trained_on_a_quantised_base_is_merged_into_its_own_weights(
        self, base: LoadedBase, tiny_folder: Path, tmp_path: Path
    ) -> None:
        adapter = _adapter(tiny_folder, tmp_path / "adapter", quantise="nf4")
        merge_into_base(base, adapter, tmp_path / "merged")
        merged = load_base(f"path:{tmp_path / 'merged'}").model
        torch.testing.assert_close(logits(merged), logits(_peft_merged(tiny_folder, adapter)), rtol=1e-5, atol=1e-5)
        with pytest.raises(InvalidInput, match="nf4"):
            merge_into_base(load_base(f"path:{tiny_folder}", quantise="nf4"), adapter, tmp_path / "other")

    def test_a_base_held_in_fewer_bits_than_it_is_stored_in_is_refused(self, tiny_folder: Path, tmp_path: Path) -> None:
        adapter = _adapter(tiny_folder, tmp_path / "adapter")
        with pytest.raises(InvalidInput, match="held as"):
            merge_into_base(load_base(f"path:{tiny_folder}", dtype="bfloat16"), adapter, tmp_path / "merged")
        assert not (tmp_path / "merged").exists()

    def test_an_adapter_on_a_head_is_not_merged_where_the_head_is_tied(
        self, base: LoadedBase, tiny_folder: Path, tmp_path: Path
    ) -> None:
        adapter = _adapter(tiny_folder, tmp_path / "adapter", LoraSpec(rank=2, targets=("lm_head",)))
        with pytest.raises(UnsupportedModel, match="tied to the embedding"):
            merge_into_base(base, adapter, tmp_path / "merged")

    def test_another_base_is_refused(self, tiny_folder: Path, tmp_path: Path) -> None:
        adapter = _adapter(tiny_folder, tmp_path / "adapter")
        other = load_base(f"path:{make_tiny_base(tmp_path / 'other', seed=9)}")
        with pytest.raises(DigestMismatch):
            merge_into_base(other, adapter, tmp_path / "merged")


def _deltas(base: LoadedBase, folder: Path) -> dict[str, Tensor]:
    return {name: layer.delta for name, layer in read_stored(folder, base).layers.items()}


def _by_peft(tiny_folder: Path, folders: list[Path], weights: list[float], how: str, **options: Any) -> Any:
    model = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder), folders[0], "0")
    for number, folder in enumerate(folders[1:], 1):
        model.load_adapter(folder, str(number))
    names = [str(number) for number in range(len(folders))]
    model.base_model.add_weighted_adapter(names, weights, "made", how, **options)
    model.set_adapter("made")
    return model


class TestSeveral:
    @pytest.fixture
    def three(self, tiny_folder: Path, tmp_path: Path) -> list[Path]:
        return [_adapter(tiny_folder, tmp_path / f"a{seed}", seed=seed) for seed in (1, 2, 3)]

    @pytest.mark.parametrize("how", ["cat", "linear", "svd", "ties", "ties_svd"])
    def test_the_result_is_what_peft_makes_of_the_whole_model(
        self, base: LoadedBase, tiny_folder: Path, tmp_path: Path, three: list[Path], how: Any
    ) -> None:
        weights = [0.5, 0.8, -0.3]
        made = combine_adapters(base, three, tmp_path / "made", CombineSpec(how=how, weights=weights, density=0.4))
        options = {"density": 0.4} if "ties" in how else {}
        reference = _by_peft(tiny_folder, three, weights, how, **options)
        ours = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder), tmp_path / "made")
        torch.testing.assert_close(logits(ours), logits(reference), rtol=1e-4, atol=1e-4)
        assert made.spec.rank == (12 if how == "cat" else 4)
        assert read_adapter(tmp_path / "made", base).rank == made.spec.rank

    def test_cat_is_the_weighted_sum_also_of_different_ranks_and_layers(
        self, base: LoadedBase, tiny_folder: Path, tmp_path: Path
    ) -> None:
        folders = [
            _adapter(tiny_folder, tmp_path / "one", LoraSpec(rank=4, alpha=8, targets=("q_proj", "o_proj"))),
            _adapter(tiny_folder, tmp_path / "two", LoraSpec(rank=2, rslora=True, targets=("q_proj",)), seed=2),
        ]
        combine_adapters(base, folders, tmp_path / "made", CombineSpec(weights=(2.0, -0.5)))
        found = _deltas(base, tmp_path / "made")
        one, two = (_deltas(base, folder) for folder in folders)
        for name in found:
            expected = 2.0 * one[name] - (0.5 * two[name] if name in two else 0)
            torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-6)
        assert found.keys() == one.keys()

    @pytest.mark.parametrize("how", ["dare_linear", "dare_ties", "dare_linear_svd", "dare_ties_svd"])
    def test_dare_depends_on_its_seed_alone_and_keeps_all_at_density_one(
        self, base: LoadedBase, tmp_path: Path, three: list[Path], how: Any
    ) -> None:
        def make(name: str, **options: Any) -> bytes:
            torch.rand(5)
            combine_adapters(base, three, tmp_path / name, CombineSpec(how=how, **options))
            return (tmp_path / name / "adapter_model.safetensors").read_bytes()

        state = torch.get_rng_state()
        first = make("one", density=0.7)
        assert make("two", density=0.7) == first
        assert make("three", density=0.7, seed=1) != first
        torch.set_rng_state(state)
        if how == "dare_linear":
            whole = make("four", density=1.0)
            combine_adapters(base, three, tmp_path / "linear", CombineSpec(how="linear"))
            assert whole == (tmp_path / "linear" / "adapter_model.safetensors").read_bytes()

    def test_it_says_what_it_is_made_of(self, base: LoadedBase, tmp_path: Path, three: list[Path]) -> None:
        combine_adapters(base, three, tmp_path / "made", CombineSpec(how="ties", density=0.3))
        origin = json.loads((tmp_path / "made" / "espalier.json").read_text())
        assert origin["base_digest"] == base.base_digest
        assert (origin["combined"]["how"], origin["combined"]["density"]) == ("ties", 0.3)
        assert [part["dataset"] for part in origin["combined"]["adapters"]] == ["d1", "d2", "d3"]
        assert [part["weight"] for part in origin["combined"]["adapters"]] == [1 / 3] * 3

    def test_what_cannot_be_combined_is_refused(
        self, base: LoadedBase, tiny_folder: Path, tmp_path: Path, three: list[Path]
    ) -> None:
        made = tmp_path / "made"
        with pytest.raises(InvalidInput, match="one adapter"):
            combine_adapters(base, three[:1], made, CombineSpec())
        with pytest.raises(InvalidInput, match="2 weights for 3"):
            combine_adapters(base, three, made, CombineSpec(weights=(1.0, 2.0)))
        wide = _adapter(tiny_folder, tmp_path / "wide", LoraSpec(rank=9))
        with pytest.raises(InvalidInput, match="needs adapters of one rank, these have 4, 9"):
            combine_adapters(base, [three[0], wide], made, CombineSpec(how="ties"))
        dora = _adapter(tiny_folder, tmp_path / "dora", LoraSpec(rank=4, dora=True))
        with pytest.raises(UnsupportedModel, match="DoRA"):
            combine_adapters(base, [three[0], dora], made, CombineSpec())
        assert not made.exists()

    def test_without_peft_it_says_what_to_install(
        self, base: LoadedBase, tmp_path: Path, three: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "peft", None)
        with pytest.raises(MissingExtra) as caught:
            combine_adapters(base, three, tmp_path / "made", CombineSpec())
        assert "espalier[peft]" in caught.value.hint
