"""What benchmarks/train.py trains on: documents, a tokenizer and bases with random weights, all made here.

Documents are multi-turn chats of invented words. Their lengths in tokens are taken from a curve through p50 85, p90
234, p99 570 and at most 954, at evenly spaced places, so every number of documents has that mix. About half of the
tokens are the assistant's.
"""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CURVE = [(0.0, 14), (0.5, 85), (0.9, 234), (0.99, 570), (1.0, 954)]  # share of documents -> tokens
SHAPES: dict[str, dict[str, int]] = {
    "135m": {
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "vocab_size": 49152,
    },
    "15m": {
        "hidden_size": 256,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "intermediate_size": 704,
        "vocab_size": 32768,
    },
    "8b": {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "vocab_size": 128256,
    },
}
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
    "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_ONSETS = ["b", "c", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "z", "st", "tr", "pl"]
_RHYMES = ["a", "e", "i", "o", "u", "ai", "ou", "er", "an", "in"]


def make_lengths(count: int) -> list[int]:
    """Tokens of each document, ascending."""
    return [_length((index + 0.5) / count) for index in range(count - 1)] + [CURVE[-1][1]]


def _length(share: float) -> int:
    (low, short), (high, long) = next(pair for pair in pairwise(CURVE) if share <= pair[1][0])
    tokens: float = short * (long / short) ** ((share - low) / (high - low))
    return round(tokens)


class Writer:
    """Invented text of a wanted number of tokens; common words come often, as in a language."""

    def __init__(self, seed: int = 0) -> None:
        draw = random.Random(seed)
        syllables = [onset + rhyme for onset in _ONSETS for rhyme in _RHYMES]
        self.words = ["".join(draw.choices(syllables, k=draw.choice([1, 2, 2, 3, 3, 4]))) for _ in range(6000)]

    def write(self, draw: random.Random, words: int) -> str:
        return " ".join(self._word(draw) for _ in range(words))

    def _word(self, draw: random.Random) -> str:
        word = self.words[min(int(draw.paretovariate(0.9) * 3) - 3, len(self.words) - 1)]
        return word + draw.choice(",.?;") if draw.random() < 0.08 else word


def make_tokenizer(folder: Path, writer: Writer) -> Tokenizer:
    """A byte-level BPE of the invented language, in `folder` as transformers writes one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    draw = random.Random(5)
    trainer = trainers.BpeTrainer(
        vocab_size=32768,
        special_tokens=["<|pad|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((writer.write(draw, 200) for _ in range(2000)), trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<|pad|>",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokenizer


def make_documents(count: int, tokenizer: Tokenizer, writer: Writer, seed: int = 1) -> list[dict[str, Any]]:
    """Chats in random order, each with its length in tokens."""
    draw = random.Random(seed)
    lengths = make_lengths(count)
    draw.shuffle(lengths)
    return [
        _chat(f"d{number:05}", length, random.Random(f"{seed}/{number}"), tokenizer, writer)
        for number, length in enumerate(lengths)
    ]


def _chat(name: str, length: int, draw: random.Random, tokenizer: Tokenizer, writer: Writer) -> dict[str, Any]:
    """A chat of `length` tokens, or within two of it: words are added until it is as long."""
    turns = max(1, min(draw.choice([1, 1, 1, 2, 2, 3, 4]), length // 40))
    share = draw.uniform(0.2, 0.55)  # the user's part of a turn
    sizes = [max(1, int(part * length / turns * 0.75)) for part in (share, 1 - share)]
    messages = [
        {"role": role, "content": writer.write(draw, size)}
        for _ in range(turns)
        for role, size in zip(("user", "assistant"), sizes, strict=True)
    ]
    while (missing := length - count_tokens(tokenizer, messages)) > 2:
        grown = messages[draw.randrange(len(messages))]
        grown["content"] += " " + writer.write(draw, max(1, missing // 3))
    while count_tokens(tokenizer, messages) > length and any(" " in m["content"] for m in messages):
        longest = max(messages, key=lambda message: len(message["content"]))
        longest["content"] = longest["content"].rsplit(" ", 1)[0]
    return {"id": name, "messages": messages, "tokens": count_tokens(tokenizer, messages)}


def count_tokens(tokenizer: Tokenizer, messages: list[dict[str, str]]) -> int:
    """How many tokens `TEMPLATE` makes of a chat."""
    text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    return len(tokenizer.encode(text).ids)


def make_base(folder: Path, size: str, tokenizer: Path) -> Path:
    """A Llama of the named shape with random bfloat16 weights, as a hub folder."""
    if (folder / "model.safetensors").is_file():
        return folder
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tied = size != "8b"
    config = LlamaConfig(
        **SHAPES[size], max_position_embeddings=2048, tie_word_embeddings=tied, use_cache=False,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    with torch.device("cuda" if torch.cuda.is_available() and not tied else "cpu"):  # 8B are slow to draw on a CPU
        model = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tokenizer / name).read_bytes())
    return folder
