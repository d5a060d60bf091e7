"""A random Llama of 70,000 parameters with a byte-level tokenizer and ChatML turns, made in a blink: for tests.

Its answers mean nothing, but they are deterministic, differ between prompts, and go through the code of any base.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

from espalier.nn.adapters import attach_adapters, save_adapter
from espalier.nn.base import load_base
from espalier.nn.lora import LoraSpec
from espalier.tokens.tokenizer import save_tokenizer, train_tokenizer

_TEXTS = ['The quick brown fox jumps over the lazy dog. 0123456789 <record id="1">Größe</record>\n']


def make_tiny_base(folder: Path, seed: int = 0, *, context_tokens: int = 512) -> Path:
    """Write config, safetensors weights, tokenizer and template into `folder`; returns it. Same seed, same bytes."""
    transformers_logging.disable_progress_bar()
    words = train_tokenizer(_TEXTS, vocabulary=288)
    save_tokenizer(words, folder, context_tokens=context_tokens)
    config = LlamaConfig(
        vocab_size=words.size,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context_tokens,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=True,
    )
    generator = torch.Generator().manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers warns of its own defaults
        model = LlamaForCausalLM(config)
    with torch.no_grad():
        # Wider than a trainer would start from, so that greedy answers vary instead of repeating one token.
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=0.3, generator=generator)
    model.save_pretrained(folder)
    return folder


def make_tiny_adapter(folder: Path, base: Path, spec: LoraSpec, seed: int = 0) -> Path:
    """Write a random adapter on the tiny base in folder `base` into `folder`; returns it. Same seed, same bytes.

    Strong enough that its greedy answers are other than the base's.
    """
    loaded = load_base(f"path:{base}")
    adapters = attach_adapters(loaded.model, spec, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapters.parameters():
            parameter.normal_(std=0.12, generator=generator)
    save_adapter(folder, adapters, loaded)
    return folder
