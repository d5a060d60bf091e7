from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.unit.nn.adapterwork import logits, loss, stir
from transformers import AutoModelForCausalLM, AutoTokenizer

from espalier.core.errors import InvalidInput
from espalier.nn import export
from espalier.nn.base import LoadedBase, load_base
from espalier.nn.export import save_base
from espalier.nn.freezing import FreezeSpec
from espalier.nn.learning import choose_learning
from espalier.nn.locate import digest_base, locate_base, name_stored_dtype


def test_everything_learns_unless_it_is_frozen(base: LoadedBase) -> None:
    learning = choose_learning(base.model, FreezeSpec())
    assert learning.trained == learning.total == sum(p.numel() for p in base.model.parameters())
    assert list(learning.parameters) == [name for name, _ in base.model.named_parameters()]


def test_layers_below_and_patterns_stay_and_get_no_gradient(base: LoadedBase) -> None:
    freeze = FreezeSpec(layers_below=1, names=("*.layers.1.mlp.*", "model.norm.weight"))
    learning = choose_learning(base.model, freeze)
    assert set(learning.parameters) == {
        f"model.layers.1.{part}.weight"
        for part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                     "input_layernorm", "post_attention_layernorm")
    }  # fmt: skip
    assert learning.trained == 48 * 48 * 2 + 48 * 24 * 2 + 2 * 48
    loss(base.model).backward()
    for name, parameter in base.model.named_parameters():
        assert (parameter.grad is not None) == (name in learning.parameters)


def test_nothing_learns_when_only_a_head_is_wanted(base: LoadedBase) -> None:
    learning = choose_learning(base.model, FreezeSpec(), nothing=True)
    assert (learning.parameters, learning.trained) == ({}, 0)
    assert not any(p.requires_grad for p in base.model.parameters())


@pytest.mark.parametrize(
    ("freeze", "message", "hint"),
    [
        (FreezeSpec(layers_below=3), "the model has 2", ""),
        (FreezeSpec(names=("*.mpl.*",)), r"no parameter's name matches '\*\.mpl\.\*'", "mlp"),
        (FreezeSpec(names=("*",)), "every parameter is frozen", "fewer"),
    ],
)
def test_a_freeze_that_fits_no_model_is_refused(base: LoadedBase, freeze: FreezeSpec, message: str, hint: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        choose_learning(base.model, freeze)
    assert hint in caught.value.hint


class TestSaving:
    def test_a_saved_base_is_read_back_by_us_and_by_transformers(self, base: LoadedBase, tmp_path: Path) -> None:
        stir(base.model.parameters(), std=0.3)
        digest = save_base(tmp_path, base, dataset="d1", recipe="r1", origin={"method": "sft"})
        expected = logits(base.model)
        found = load_base(f"path:{tmp_path}")
        assert digest == found.base_digest == digest_base(locate_base(f"path:{tmp_path}")) != base.base_digest
        assert found.tokenizer_digest == base.tokenizer_digest
        assert found.template_digest == base.template_digest
        torch.testing.assert_close(logits(found.model), expected, rtol=0, atol=0)
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
        torch.testing.assert_close(logits(theirs), expected, rtol=0, atol=0)
        assert AutoTokenizer.from_pretrained(tmp_path).chat_template == base.tokenizer.template
        origin = json.loads((tmp_path / "espalier.json").read_text())
        assert origin == {
            "base": base.spec, "base_digest": base.base_digest, "dataset": "d1", "recipe": "r1", "method": "sft",
        }  # fmt: skip

    def test_the_same_weights_give_the_same_bytes(self, base: LoadedBase, tmp_path: Path) -> None:
        digests = {save_base(tmp_path / name, base) for name in ("one", "two")}
        assert len(digests) == 1
        for path in (tmp_path / "one").iterdir():
            assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()

    def test_trained_tensors_take_the_models_place_also_where_one_is_tied_to_the_head(
        self, base: LoadedBase, tmp_path: Path
    ) -> None:
        weights = {name: torch.full_like(p, 0.25) for name, p in base.model.named_parameters() if "embed" in name}
        save_base(tmp_path, base, weights=weights)
        found = load_base(f"path:{tmp_path}").model
        assert torch.equal(found.get_output_embeddings().weight, found.get_input_embeddings().weight)
        assert bool((found.get_input_embeddings().weight == 0.25).all())

    def test_the_number_type_may_change_and_the_configuration_says_so(self, base: LoadedBase, tmp_path: Path) -> None:
        save_base(tmp_path, base, dtype="bfloat16")
        assert name_stored_dtype(tmp_path) == "bfloat16"
        assert load_base(f"path:{tmp_path}", dtype="stored").dtype == torch.bfloat16
        again = tmp_path / "again"
        save_base(again, load_base(f"path:{tmp_path}", dtype="float32"))
        assert name_stored_dtype(again) == "bfloat16"
        assert digest_base(again) == digest_base(tmp_path)
        assert AutoModelForCausalLM.from_pretrained(tmp_path).dtype == torch.bfloat16

    def test_large_weights_are_written_in_shards(
        self, base: LoadedBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(export, "SHARD", "100KB")
        save_base(tmp_path, base)
        assert len(list(tmp_path.glob("*.safetensors"))) > 1
        torch.testing.assert_close(logits(load_base(f"path:{tmp_path}").model), logits(base.model), rtol=0, atol=0)

    def test_a_tensor_of_another_model_is_refused(self, base: LoadedBase, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match="does not fit"):
            save_base(tmp_path, base, weights={"model.norm.weight": torch.ones(3)})
