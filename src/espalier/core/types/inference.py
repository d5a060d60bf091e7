"""Asking a model: what it may call, how to sample, what came back, what it used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from espalier.core.types.spec import Spec

FinishReason = Literal["stop", "length", "tool_calls", "cancelled", "error"]


class ResponseFormat(Spec):
    """What an answer must look like; tokens that would leave the form are never chosen.

    `text` is the JSON Schema as JSON, the regular expression, or the grammar in Lark's syntax; empty for `json_object`.
    """

    kind: Literal["json_object", "json_schema", "regex", "grammar"]
    text: str = ""


class SamplingSpec(Spec):
    """How tokens are chosen. Temperature 0 is greedy and deterministic."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0  # 0 = all
    min_p: float = 0.0  # of the likeliest token's probability; 0 = off
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()  # (token id, added to its logit), each id once
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_end: bool = False  # go on past the model's end tokens until max_tokens: for benchmarks
    logprobs: int | None = None  # None = not told; 0 = of the chosen tokens; k = also of the k likeliest at each place
    n: int = 1  # answers to one prompt, each with a stream of its own
    format: ResponseFormat | None = None


class Tool(Spec):
    """A function the model may ask to have called. `parameters` is a JSON Schema."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    strict: bool = False  # its arguments follow the schema for certain, also where the model chooses to call it


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call the model asks for. `arguments` is JSON as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of an answer, how likely it was (natural logarithm), and the likeliest there."""

    id: int
    text: bytes  # a token may be a part of a character
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


class Usage(Spec):
    """Tokens of one answer, counted by the model's own tokenizer."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0  # of the prompt, taken from the prefix cache

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Generation(Spec):
    """One answer as the engine gives it."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()


class Completion(Spec):
    """One answer as the gateway gives it: the generation, and who is accountable for it."""

    request: str
    model: str  # as asked for
    resolved: str  # the version that answered: "model:support@v1"
    adapter: str  # artifact digest, empty for the base
    generation: Generation
    others: tuple[Generation, ...] = ()  # where `n` answers were asked for, the second and on
    cost_nusd: int
    latency_ms: int
