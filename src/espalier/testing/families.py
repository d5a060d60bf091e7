"""Random models of two layers in the shape of every common family, each with a chat template of that family's shape.

For tests: nothing is downloaded, nothing learnt is in them. The templates are our own, with the structure of the
family's: its markers, where its turns end, what it does with a system message, whether it rewrites earlier turns.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from espalier.testing import templates
from espalier.testing.tooltemplates import TOOL_FAMILIES
from espalier.tokens.chat import CallFormat
from espalier.tokens.tokenizer import ChatTokenizer, save_tokenizer

WINDOW = 8  # of layers that look back only so far; shorter than most test documents
_TEXTS = [
    'The quick brown fox jumps over the lazy dog. 0123456789 <record id="1">Größe</record>\n',
    "user assistant system model Say it. The code is one two three.\n\nYou are a helpful assistant.\n",
]
_SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@dataclass(frozen=True, slots=True)
class Family:
    """What distinguishes a family: its config class and settings, its template and the special tokens of that."""

    config: str
    template: str
    special: tuple[str, ...]  # in the order of their ids; names of `roles` point into it
    roles: Mapping[str, str]  # bos_token, eos_token, pad_token
    settings: Mapping[str, Any] = field(default_factory=dict)
    pieces: bool = False  # a SentencePiece-like tokenizer instead of bytes


_CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_MISTRAL = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]")
_GEMMA = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
_QWEN_ROLES = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
_MISTRAL_ROLES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_GEMMA_ROLES = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}

FAMILIES: dict[str, Family] = {
    "llama-3": Family(
        "LlamaConfig",
        templates.LLAMA3,
        ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
        {"rope_parameters": _LLAMA3_ROPE},
    ),
    "qwen-2.5": Family("Qwen2Config", templates.QWEN25, _CHATML, _QWEN_ROLES),
    "qwen-2.5-window": Family(
        "Qwen2Config",
        templates.QWEN25,
        _CHATML,
        _QWEN_ROLES,
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    ),
    "qwen-3": Family("Qwen3Config", templates.QWEN3, (*_CHATML, "<think>", "</think>"), _QWEN_ROLES, {"head_dim": 16}),
    "qwen-3-moe": Family(
        "Qwen3MoeConfig",
        templates.QWEN3,
        (*_CHATML, "<think>", "</think>"),
        _QWEN_ROLES,
        {"head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
    ),
    "mistral": Family(
        "MistralConfig", templates.MISTRAL, _MISTRAL, _MISTRAL_ROLES, {"sliding_window": WINDOW}, pieces=True
    ),
    "mixtral": Family(
        "MixtralConfig",
        templates.MIXTRAL,
        _MISTRAL,
        _MISTRAL_ROLES,
        {"num_local_experts": 4, "num_experts_per_tok": 2},
        pieces=True,
    ),
    "gemma-2": Family(
        "Gemma2Config",
        templates.GEMMA2,
        _GEMMA,
        _GEMMA_ROLES,
        {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": WINDOW, "attn_logit_softcapping": 5.0},
    ),
    "gemma-3": Family(
        "Gemma3TextConfig",
        templates.GEMMA3,
        _GEMMA,
        _GEMMA_ROLES,
        {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": WINDOW},
    ),
    "phi": Family(
        "Phi3Config",
        templates.PHI,
        ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
        {"sliding_window": WINDOW},
    ),
    "smollm": Family("LlamaConfig", templates.SMOLLM, _CHATML, _QWEN_ROLES, {"tie_word_embeddings": True}),
    "smollm-3": Family("SmolLM3Config", templates.SMOLLM3, (*_CHATML, "<think>", "</think>"), _QWEN_ROLES),
}


def make_family(name: str, folder: Path, seed: int = 0, *, context_tokens: int = 512) -> Path:
    """Write a base of that family into `folder`: config, safetensors weights, tokenizer and template; returns it."""
    transformers_logging.disable_progress_bar()
    words = family_tokenizer(name)
    save_tokenizer(words, folder, context_tokens=context_tokens)
    family_model(name, words, seed, context_tokens=context_tokens).save_pretrained(folder)
    return folder


def family_model(
    name: str, words: ChatTokenizer | None = None, seed: int = 0, *, context_tokens: int = 512
) -> PreTrainedModel:
    """The model alone, float32; same seed, same weights."""
    words = words or family_tokenizer(name)
    config = family_config(name, words, context_tokens=context_tokens)
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")  # transformers warns of its own defaults
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return widen(model, seed).eval()


def widen(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Add noise to every weight: wider than a trainer starts from, so that attention and routing decide something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.empty_like(parameter).normal_(std=0.1, generator=generator)
    return model


def family_config(name: str, words: ChatTokenizer, *, context_tokens: int = 512) -> PreTrainedConfig:
    """The config of a tiny model of that family."""
    family = FAMILIES[name]
    ids = {f"{role}_id": words.backend.token_to_id(token) for role, token in family.roles.items() if role[:3] != "unk"}
    settings = {**_SHAPE, "vocab_size": words.size, "max_position_embeddings": context_tokens, **ids}
    made: PreTrainedConfig = getattr(transformers, family.config)(
        **{"bos_token_id": None, "pad_token_id": None, **settings, **family.settings}
    )
    return made


def family_tokenizer(name: str) -> ChatTokenizer:
    """A tokenizer of a few hundred ids with the family's special tokens and template."""
    family = FAMILIES[name]
    special = [AddedToken(token, special=True, normalized=False) for token in family.special]
    if family.pieces:
        backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        backend.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        alphabet = sorted(set("".join(_TEXTS)))
        plain = [f"<0x{byte:02X}>" for byte in range(256)]
    else:
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet, plain = pre_tokenizers.ByteLevel.alphabet(), []
    trainer = trainers.BpeTrainer(
        vocab_size=len(special) + len(plain) + 320,
        special_tokens=[*special, *plain],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(_TEXTS, trainer)
    if plain:  # the trainer takes bytes into the vocabulary as special tokens only; in SentencePiece they are not
        written = json.loads(backend.to_str())
        written["added_tokens"] = [token for token in written["added_tokens"] if token["content"] not in plain]
        backend = Tokenizer.from_str(json.dumps(written))
    return ChatTokenizer(backend, family.template, dict(family.roles))


def tool_tokenizer(format: CallFormat) -> ChatTokenizer:
    """The tokenizer of a family whose template knows tools, written as `format`."""
    name, template, special = TOOL_FAMILIES[format]
    plain = family_tokenizer(name)
    plain.backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return ChatTokenizer(plain.backend, template, plain.special_tokens)


def make_tool_family(format: CallFormat, folder: Path, seed: int = 0, *, context_tokens: int = 1024) -> Path:
    """Write a base into `folder` that is asked with tools; returns it."""
    transformers_logging.disable_progress_bar()
    words = tool_tokenizer(format)
    save_tokenizer(words, folder, context_tokens=context_tokens)
    family_model(TOOL_FAMILIES[format][0], words, seed, context_tokens=context_tokens).save_pretrained(folder)
    return folder
