"""Small random models of the families the lean decoder covers, and what transformers makes of the same documents."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)
from transformers.utils import logging

from espalier.tokens.mask import Tokenized

VOCABULARY = 97
_SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
    "attn_implementation": "eager",
}
_LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}


def configs() -> dict[str, PretrainedConfig]:
    """By what is special about each."""
    logging.set_verbosity_error()
    original = {"original_max_position_embeddings": 64}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "llama, wide heads": LlamaConfig(**_SMALL | {"head_dim": 16}),
            "llama, tied, as many key heads": LlamaConfig(
                **_SMALL | {"num_key_value_heads": 4, "tie_word_embeddings": True}
            ),
            "llama 3 rotary, biases": LlamaConfig(
                **_SMALL, attention_bias=True, mlp_bias=True, rope_parameters=_LLAMA3 | original
            ),
            "llama, yarn": LlamaConfig(**_SMALL, rope_parameters=_YARN | original),
            "llama, linear": LlamaConfig(
                **_SMALL, rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
            ),
            "mistral, window": MistralConfig(**_SMALL, sliding_window=20),
            "qwen 2": Qwen2Config(**_SMALL),
            "qwen 2, window above": Qwen2Config(
                **_SMALL, use_sliding_window=True, sliding_window=16, max_window_layers=1
            ),
            "qwen 3": Qwen3Config(**_SMALL, head_dim=16),
            "smollm 3": SmolLM3Config(**_SMALL, no_rope_layer_interval=2),
        }


def make_model(config: PretrainedConfig) -> PreTrainedModel:
    """Random float32 weights wide enough that every part matters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.normal_(1.0 if "norm" in name else 0.0, 0.1)
    return model.eval()


def make_documents(sizes: Sequence[int] = (5, 40, 140, 17)) -> list[Tokenized]:
    """Random tokens, four in ten of them supervised and the last."""
    draw = random.Random(3)
    made = []
    for n, size in enumerate(sizes):
        weights = [0.0, *(float(draw.random() < 0.4) for _ in range(size - 1))]
        weights[-1] = 1.0
        made.append(Tokenized(str(n), [draw.randrange(VOCABULARY) for _ in range(size)], weights))
    return made


def padded_loss(model: torch.nn.Module, documents: Sequence[Tokenized]) -> Tensor:
    """One padded batch with an attention mask and full logits: the mean over supervised tokens."""
    t = max(len(document.ids) for document in documents)
    ids = torch.zeros(len(documents), t, dtype=torch.long)
    seen, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for n, document in enumerate(documents):
        size = len(document.ids)
        ids[n, :size] = torch.tensor(document.ids)
        seen[n, :size] = 1
        labels[n, :size] = torch.where(torch.tensor(document.weights) > 0, ids[n, :size], -100)
    loss: Tensor = model(input_ids=ids, attention_mask=seen, labels=labels).loss
    return loss


def distance(ours: Tensor, theirs: Tensor) -> float:
    """Norm of the difference over the norm."""
    return float((ours - theirs).norm() / theirs.norm())
