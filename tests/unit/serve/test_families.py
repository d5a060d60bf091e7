"""Whatever the architecture, the engine answers as `transformers` does, or refuses: never something in between."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from espalier.core.config import ServeConfig
from espalier.core.errors import UnsupportedModel
from espalier.core.types import Message, SamplingSpec
from espalier.nn import slots
from espalier.nn.base import load_base
from espalier.serve.engine import Engine

COMMON = {
    "vocab_size": 288,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,  # else a random model repeats its last token
}
WINDOW = 20  # shorter than every prompt
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "norm_topk_prob": True}
ANSWERED: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral-window": ("mistral", {"sliding_window": WINDOW}),
    "mixtral": ("mixtral", {"sliding_window": WINDOW, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2": ("qwen2", {}),
    "qwen2-window": ("qwen2", {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}),
    "qwen2-moe": ("qwen2_moe", {**MOE, "shared_expert_intermediate_size": 32}),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "qwen3-moe": ("qwen3_moe", {"head_dim": 16, **MOE}),
    "gemma": ("gemma", {"head_dim": 16}),
    "gemma2": (
        "gemma2",
        {"head_dim": 16, "query_pre_attn_scalar": 20, "sliding_window": WINDOW, "attn_logit_softcapping": 3.0},
    ),
    "gemma3": (
        "gemma3_text",
        {
            "head_dim": 16,
            "query_pre_attn_scalar": 20,
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "gpt-oss": (
        "gpt_oss",
        {
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "head_dim": 16,
            "sliding_window": WINDOW,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
    ),
    "olmo2": ("olmo2", {}),
    "olmo3": ("olmo3", {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}),
    "phi3": ("phi3", {"sliding_window": WINDOW}),
    "smollm3": ("smollm3", {"no_rope_layer_interval": 2}),
    "granite": ("granite", {"attention_multiplier": 0.3, "residual_multiplier": 0.5}),
    "cohere2": ("cohere2", {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}),
    "gpt-neox": ("gpt_neox", {"num_key_value_heads": 4}),
}
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "heads-other-than-said": ("gpt_neox", {"num_key_value_heads": 2}),  # it has four, its cache would be too small
    "state-space": ("mamba", {}),
    "rotary-by-length": ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}}),
    "chunked-attention": (
        "llama4_text",
        {
            "head_dim": 16,
            "attention_chunk_size": 64,
            "num_local_experts": 2,
            "intermediate_size_mlp": 96,
            "interleave_moe_layer_step": 2,
        },
    ),
}


def make_base(folder: Path, tiny_folder: Path, family: str, options: dict[str, Any]) -> Path:
    """A random model of `family` with the tiny base's tokenizer and template."""
    transformers_logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**COMMON, **options}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.normal_(std=0.3, generator=generator)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tiny_folder / name, folder)
    return folder


@pytest.mark.parametrize("family", ANSWERED)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # transformers' own, about random models
def test_a_family_that_is_answered_is_answered_exactly(family: str, tiny_folder: Path, tmp_path: Path) -> None:
    folder = make_base(tmp_path, tiny_folder, *ANSWERED[family])
    texts = ["hello", "a longer question, with shared words in it", "a longer question, with shared words at its end"]
    base = load_base(f"path:{folder}")
    expected = []
    for text in texts:
        ids = torch.tensor([base.tokenizer.encode_prompt([Message("user", text)])])
        mask = torch.ones_like(ids)
        out = base.model.generate(ids, attention_mask=mask, max_new_tokens=20, do_sample=False)
        expected.append(tuple(out[0, ids.shape[1] :].tolist()))
    engine = Engine(base, ServeConfig(max_batch=3, max_context_tokens=200, step_budget_tokens=16))
    found = engine.generate([[Message("user", text)] for text in texts], SamplingSpec(max_tokens=20))
    assert [answer.token_ids for answer in found] == expected
    assert len(set(expected)) == len(texts)


@pytest.mark.parametrize("family", REFUSED)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_family_that_would_be_answered_otherwise_is_refused(family: str, tiny_folder: Path, tmp_path: Path) -> None:
    folder = make_base(tmp_path, tiny_folder, *REFUSED[family])
    with pytest.raises(UnsupportedModel):
        Engine(load_base(f"path:{folder}"), ServeConfig(max_batch=2, max_context_tokens=200))


@pytest.mark.parametrize("lost", ["sliding_window", "softcap"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_the_control_a_window_or_cap_that_got_lost_is_seen(
    lost: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_base(tmp_path, tiny_folder, *ANSWERED["gemma2"])
    known = slots._kind_of
    monkeypatch.setattr(slots, "_kind_of", lambda options, context: known({**options, lost: None}, context))
    with pytest.raises(UnsupportedModel, match="differ from the model's own"):
        Engine(load_base(f"path:{folder}"), ServeConfig(max_batch=2, max_context_tokens=200))
