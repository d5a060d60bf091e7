"""What benchmarks/serve.py asks and whom: bases with random weights, adapters, questions, real arrivals; all made here.

A token is a word (`w123`), so that a text tells its ids and a prompt has exactly the length wanted of it. The weights
are drawn wider than a trainer would start from, because greedy answers then vary instead of repeating one token: an
engine that mixes two requests up is caught by its answers. Adapters stand on all linear layers.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import random
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from train_material import SHAPES, TEMPLATE

SPECIAL = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
ROLES = ["user", "assistant"]
TURN_TOKENS = 5  # what the template adds to a question: two turns opened, one of them closed
TRACE = Path(__file__).resolve().parents[2] / "shared/data/azure-llm-trace/AzureLLMInferenceTrace_conv.csv.gz"
SPREAD = 1.5  # of weights, in 1 / sqrt(width)


@dataclass(frozen=True, slots=True)
class Question:
    """One request: its words, the number of its adapter (-1 = the base), tokens wanted, when it comes (s)."""

    text: str
    adapter: int
    tokens: int
    at_s: float = 0.0


def make_serving_base(folder: Path, size: str) -> Path:
    """A Llama of the named shape with its tokenizer, as a hub folder; bfloat16 weights, which float32 holds exactly."""
    if (folder / "model.safetensors").is_file():
        return folder
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    _write_tokenizer(folder, SHAPES[size]["vocab_size"])
    torch.manual_seed(0)
    config = LlamaConfig(
        **SHAPES[size], max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
        pad_token_id=0, initializer_range=SPREAD / math.sqrt(SHAPES[size]["hidden_size"]),
    )  # fmt: skip
    LlamaForCausalLM._from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


def _write_tokenizer(folder: Path, size: int) -> None:
    words = [*SPECIAL, *ROLES]
    words += [f"w{number}" for number in range(len(words), size)]
    tokenizer = Tokenizer(models.WordLevel({word: id for id, word in enumerate(words)}, unk_token=SPECIAL[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in SPECIAL])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": SPECIAL[0],
        "bos_token": SPECIAL[1],
        "eos_token": SPECIAL[2],
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def make_adapters(folder: Path, base: Path, count: int, rank: int) -> list[str]:
    """Folders of `count` adapters, each with weights of its own, as PEFT reads them."""
    names = [folder / f"r{rank}-{number:03}" for number in range(count)]
    missing = [(number, name) for number, name in enumerate(names) if not (name / "espalier.json").is_file()]
    if missing:
        import torch

        from espalier.nn.adapterfiles import StoredAdapter, StoredLayer, origin_of, write_stored
        from espalier.nn.adapters import find_targets
        from espalier.nn.base import outline_base
        from espalier.nn.lora import LoraSpec

        outline = outline_base(f"path:{base}")
        spec = LoraSpec(rank=rank, alpha=2.0 * rank)
        targets = find_targets(outline.model, spec)
        modules = [name for name, _ in outline.model.named_modules()]
        for number, name in missing:
            draw = torch.Generator().manual_seed(1000 + number)
            layers = {}
            for target in targets:
                rows, columns = outline.model.get_submodule(target).weight.shape
                a = torch.empty(rank, columns).uniform_(-1, 1, generator=draw).div_(math.sqrt(columns))
                layers[target] = StoredLayer(a, torch.empty(rows, rank).normal_(std=0.03, generator=draw), spec.scale)
            write_stored(name, StoredAdapter(spec, layers, origin_of(outline)), modules, f"path:{base}")
    return [str(name) for name in names]


def make_questions(count: int, adapters: int, tokens: int, vocabulary: int, seed: int = 0) -> list[Question]:
    """Prompts of 32 to 96 tokens, no two alike; question i asks adapter i modulo `adapters`."""
    draw = random.Random(f"questions/{seed}")
    return [
        Question(_text(draw, draw.randint(32, 96), vocabulary), i % adapters if adapters else -1, tokens)
        for i in range(count)
    ]


def read_arrivals(
    count: int, adapters: int, most_tokens: int, per_s: float, vocabulary: int, shrink: float
) -> list[Question]:
    """The first conversations of Azure's trace: their lengths shrunk, their arrivals quickened to `per_s` requests a
    second; adapters drawn with the popularity of a Zipf law (exponent 1). Texts do not depend on `adapters`."""
    with gzip.open(TRACE, "rt") as file:
        rows = [row for _, row in zip(range(count), csv.DictReader(file), strict=False)]
    times = [datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp() for row in rows]
    pace = (count - 1) / (times[-1] - times[0]) / per_s
    draw, popular = random.Random("arrivals"), random.Random("popularity")
    popularity = list(accumulate(1 / (place + 1) for place in range(adapters)))
    questions = []
    for row, time_s in zip(rows, times, strict=True):
        answer = min(max(2, round(int(row["GeneratedTokens"]) * shrink)), most_tokens // 2)
        prompt = min(max(TURN_TOKENS + 3, round(int(row["ContextTokens"]) * shrink)), most_tokens - answer)
        text = _text(draw, prompt, vocabulary)
        adapter = popular.choices(range(adapters), cum_weights=popularity)[0]
        questions.append(Question(text, adapter, answer, (time_s - times[0]) * pace))
    return questions


def _text(draw: random.Random, prompt_tokens: int, vocabulary: int) -> str:
    first = len(SPECIAL) + len(ROLES)
    return " ".join(f"w{draw.randrange(first, vocabulary)}" for _ in range(prompt_tokens - TURN_TOKENS))


def to_job(questions: list[Question]) -> list[dict[str, Any]]:
    """As JSON holds them."""
    return [asdict(question) for question in questions]
