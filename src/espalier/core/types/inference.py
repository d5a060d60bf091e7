"""Asking a model: how to sample, what came back, what it used."""

from __future__ import annotations

from typing import Literal

from espalier.core.types.spec import Spec

FinishReason = Literal["stop", "length", "cancelled", "error"]


class SamplingSpec(Spec):
    """How tokens are chosen. Temperature 0 is greedy and deterministic."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


class Usage(Spec):
    """Tokens of one answer, counted by the model's own tokenizer."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Generation(Spec):
    """One answer as the engine gives it."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    token_ids: tuple[int, ...] = ()


class Completion(Spec):
    """One answer as the gateway gives it: the generation, and who is accountable for it."""

    request: str
    model: str  # as asked for
    resolved: str  # the version that answered: "model:support@v1"
    adapter: str  # artifact digest, empty for the base
    generation: Generation
    cost_nusd: int
    latency_ms: int
