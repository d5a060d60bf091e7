"""What answers inside the double: one token at a time of one sequence at a time, with a LoRA laid on by hooks.

Deliberately slow and plain, so that it is a second opinion on engines that are neither. Adapters are read as vLLM
before its 0.12 read them: `r` and `lora_alpha` hold for every layer, whatever `rank_pattern` says.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.cache_utils import DynamicCache
from transformers.utils import logging as transformers_logging

from espalier.testing.vllm.schema import CompletionRequest, StructuredOutputs
from espalier.tokens.tokenizer import load_tokenizer

_PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True)
class Lora:
    """By layer (A, B scaled), and where it was read from."""

    layers: dict[str, tuple[Tensor, Tensor]]
    folder: str


@dataclass(frozen=True, slots=True)
class Chosen:
    """A token, and where asked for the log-probabilities there: the chosen one's first, then the likeliest."""

    id: int
    logprobs: tuple[tuple[int, float], ...] = ()


@dataclass(slots=True)
class Sequence:
    """One answer as it grows."""

    tokens: list[int]
    prompt_tokens: int
    lora: Lora | None
    request: CompletionRequest
    generator: torch.Generator | None
    allow: Callable[[int | None], Tensor] | None
    cache: DynamicCache = field(default_factory=DynamicCache)


class AdapterFault(Exception):
    """An adapter that is not taken: (HTTP status, message)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Model:
    """A base in float32, whole in memory. Safe from any thread: one step at a time."""

    def __init__(self, folder: Path) -> None:
        transformers_logging.disable_progress_bar()
        self.tokenizer = load_tokenizer(folder)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
        self.vocabulary = int(self._model.config.vocab_size)
        self.context_tokens = int(self._model.config.max_position_embeddings)
        ends = self._model.config.eos_token_id
        self.eos_ids = frozenset(ends if isinstance(ends, list) else [ends])
        self._lora: Lora | None = None
        self._turn = threading.Lock()
        for name, layer in self._model.named_modules():
            if isinstance(layer, nn.Linear):
                layer.register_forward_hook(self._laid_on(name))

    def read_lora(self, folder: str, max_rank: int) -> Lora:
        """Raises AdapterFault as vLLM answers."""
        path = Path(folder)
        if not (path / "adapter_config.json").is_file() or not (path / "adapter_model.safetensors").is_file():
            raise AdapterFault(404, f"No adapter found for {folder}")
        config = json.loads((path / "adapter_config.json").read_text("utf-8"))
        if config.get("use_dora"):
            raise AdapterFault(500, "vLLM does not yet support DoRA.")
        if config["r"] > max_rank:
            raise AdapterFault(500, f"LoRA rank {config['r']} is greater than max_lora_rank {max_rank}.")
        scale = config["lora_alpha"] / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"])
        state = load_file(path / "adapter_model.safetensors")
        modules = dict(self._model.named_modules())
        layers = {}
        for key in [key for key in state if key.endswith(".lora_A.weight")]:
            name = key.removeprefix(_PREFIX).removesuffix(".lora_A.weight")
            a, b = state[key], state[key.replace("lora_A", "lora_B")]
            if name not in modules or (modules[name].in_features, modules[name].out_features) != (
                a.shape[1],
                b.shape[0],
            ):
                raise AdapterFault(500, f"{name} is not in the base, or of another shape")
            layers[name] = (a, b * scale)
        return Lora(layers, folder)

    def begin(self, prompt: list[int], request: CompletionRequest, lora: Lora | None, number: int) -> Sequence:
        """Answer `number` of a request, nothing computed yet."""
        generator = None
        if (request.temperature if request.temperature is not None else 1.0) > 0:
            generator = torch.Generator()
            generator.manual_seed(request.seed + number) if request.seed is not None else generator.seed()
        allow = self._constrain(request.structured_outputs) if request.structured_outputs else None
        return Sequence(list(prompt), len(prompt), lora, request, generator, allow)

    @torch.inference_mode()
    def step(self, sequence: Sequence) -> Chosen:
        """Compute and append the next token."""
        with self._turn:
            self._lora = sequence.lora
            try:
                ids = torch.tensor([sequence.tokens[sequence.cache.get_seq_length() :]])
                logits = self._model(input_ids=ids, past_key_values=sequence.cache, use_cache=True).logits[0, -1]
            finally:
                self._lora = None
        if sequence.allow is not None:
            last = sequence.tokens[-1] if len(sequence.tokens) > sequence.prompt_tokens else None
            logits = logits.masked_fill(~sequence.allow(last), -math.inf)
        id = _choose(logits.clone(), sequence)
        sequence.tokens.append(id)
        return Chosen(id, _logprobs(logits, id, sequence.request.logprobs))

    def _laid_on(self, name: str) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def add(layer: nn.Module, given: Any, output: Tensor) -> Tensor:
            parts = self._lora.layers.get(name) if self._lora else None
            return output if parts is None else output + given[0] @ parts[0].T @ parts[1].T

        return add

    def _constrain(self, form: StructuredOutputs) -> Callable[[int | None], Tensor]:
        """After each token (None at first) which may follow. Raises ValueError for a form that is none."""
        from llguidance import LLMatcher, LLTokenizer

        words = LLTokenizer(self.tokenizer.backend.to_str(), n_vocab=self.vocabulary, eos_token=sorted(self.eos_ids)[0])
        matcher = LLMatcher(words, _grammar(form))
        if matcher.is_error():
            raise ValueError(f"Failed to convert the grammar: {matcher.get_error()}")

        def allow(last: int | None) -> Tensor:
            if last is not None:
                matcher.consume_token(last)
            bits = torch.frombuffer(bytearray(matcher.compute_bitmask()), dtype=torch.uint8)
            return ((bits[:, None] >> torch.arange(8)) & 1).flatten()[: self.vocabulary].bool()

        return allow


def _grammar(form: StructuredOutputs) -> str:
    from llguidance import LLMatcher

    if form.json_object:
        return str(LLMatcher.grammar_from_json_schema({"type": "object"}))
    if form.json_ is not None:
        return str(LLMatcher.grammar_from_json_schema(form.json_))
    if form.regex is not None:
        return str(LLMatcher.grammar_from_regex(form.regex))
    if form.choice is not None:
        return str(LLMatcher.grammar_from_json_schema({"enum": form.choice}))
    return str(LLMatcher.grammar_from_lark(form.grammar or ""))


def _choose(logits: Tensor, sequence: Sequence) -> int:
    """v1/sample/sampler.py: biases, penalties, then greedy, or temperature, min-p, top-k and top-p."""
    request = sequence.request
    for id, bias in (request.logit_bias or {}).items():
        logits[int(id)] += bias
    answer = torch.tensor(sequence.tokens[sequence.prompt_tokens :], dtype=torch.long)
    seen = torch.bincount(torch.tensor(sequence.tokens), minlength=len(logits)) > 0
    counts = torch.bincount(answer, minlength=len(logits))
    repetition = request.repetition_penalty or 1.0
    logits = torch.where(seen, torch.where(logits > 0, logits / repetition, logits * repetition), logits)
    logits -= (request.frequency_penalty or 0.0) * counts
    logits -= (request.presence_penalty or 0.0) * (counts > 0)
    if sequence.generator is None:
        return int(logits.argmax())
    shares = (logits / (1.0 if request.temperature is None else request.temperature)).softmax(-1)
    shares[shares < (request.min_p or 0.0) * shares.max()] = 0.0
    ordered, places = shares.sort(descending=True, stable=True)
    if request.top_k and request.top_k > 0:
        ordered[request.top_k :] = 0.0
    ordered[1:][(ordered.cumsum(-1) / ordered.sum())[:-1] >= (request.top_p or 1.0)] = 0.0
    return int(places[torch.multinomial(ordered, 1, generator=sequence.generator)])


def _logprobs(logits: Tensor, id: int, wanted: int | None) -> tuple[tuple[int, float], ...]:
    """`raw_logprobs`, vLLM's default: before biases, penalties and temperature; the chosen id's first."""
    if wanted is None:
        return ()
    values = logits.log_softmax(-1)
    likeliest: Iterator[int] = map(int, values.topk(min(wanted, len(values))).indices)
    found = {id: float(values[id])} | {each: float(values[each]) for each in likeliest}
    return tuple((each, max(value, -9999.0)) for each, value in found.items())
