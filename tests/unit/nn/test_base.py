from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from espalier.core.errors import InvalidInput, UnsupportedModel
from espalier.nn.base import EXACT_BELOW_PARAMETERS, choose_dtype, load_base


def test_a_base_comes_with_its_digests_end_tokens_and_context(tiny_folder: Path) -> None:
    base = load_base(f"path:{tiny_folder}")
    assert base.eos_ids == {2}
    assert base.context_tokens == 512
    assert len({base.base_digest, base.tokenizer_digest, base.template_digest}) == 3
    assert not base.model.training


def test_a_small_base_computes_in_float32_and_a_large_one_in_bfloat16_where_native() -> None:
    native = torch.cpu._is_avx512_bf16_supported()
    assert choose_dtype("auto", EXACT_BELOW_PARAMETERS - 1) == torch.float32
    assert choose_dtype("auto", EXACT_BELOW_PARAMETERS) == (torch.bfloat16 if native else torch.float32)
    assert choose_dtype("bfloat16", 1) == torch.bfloat16


def test_bases_are_loaded_side_by_side_without_spoiling_each_other(tiny_folder: Path) -> None:
    """transformers alone says of two such loads at once, more often than not, that weights are missing."""
    with ThreadPoolExecutor(3) as pool:
        loads = [pool.submit(load_base, f"path:{tiny_folder}", dtype=dtype) for dtype in ("float32", "bfloat16") * 4]
        kinds = [load.result().dtype for load in loads]
    assert kinds == [torch.float32, torch.bfloat16] * 4
    assert torch.get_default_dtype() == torch.float32


def test_an_architecture_that_transformers_does_not_know_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "odd")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "nonesuch"}))
    with pytest.raises(UnsupportedModel, match="nonesuch"):
        load_base(f"path:{folder}")


def test_weights_that_lack_a_tensor_are_refused_not_filled_with_noise(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "lacking")
    state = load_file(folder / "model.safetensors")
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidInput, match=r"layers\.1\.mlp\.up_proj"):
        load_base(f"path:{folder}")


def test_a_tokenizer_larger_than_the_embedding_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "mixed")
    words = json.loads((folder / "tokenizer.json").read_text())
    words["added_tokens"].append({**words["added_tokens"][0], "id": 9999, "content": "<|extra|>"})
    (folder / "tokenizer.json").write_text(json.dumps(words))
    state = load_file(folder / "model.safetensors")
    rows = state["model.embed_tokens.weight"].shape[0]
    with pytest.raises(InvalidInput, match=f"{rows} rows"):
        load_base(f"path:{folder}")
