"""May an answer be sampled so? Asked before a request enters the engine, so that what is refused costs nothing."""

from __future__ import annotations

from espalier.core.errors import InvalidInput
from espalier.core.types import SamplingSpec

MOST_ANSWERS, MOST_LOGPROBS = 128, 20
_MOST_TOP_K = 2**31 - 1  # far beyond any vocabulary; a larger number is none that a step, or vLLM's, can be told


def check_sampling(sampling: SamplingSpec, vocabulary: int) -> None:
    """Raises InvalidInput naming the setting. `vocabulary`: how many ids the tokenizer has."""
    for name, value, holds, hint in (
        ("max_tokens", sampling.max_tokens, sampling.max_tokens >= 1, "ask for at least one token"),
        ("temperature", sampling.temperature, 0 <= sampling.temperature <= 10, "0 (greedy) to 2 is usual"),
        ("top_p", sampling.top_p, 0 < sampling.top_p <= 1, "above 0, and at most 1"),
        ("top_k", sampling.top_k, 0 <= sampling.top_k <= _MOST_TOP_K, "0 for all, or how many"),
        ("min_p", sampling.min_p, 0 <= sampling.min_p <= 1, "0 to 1"),
        ("presence_penalty", sampling.presence_penalty, -2 <= sampling.presence_penalty <= 2, "-2 to 2"),
        ("frequency_penalty", sampling.frequency_penalty, -2 <= sampling.frequency_penalty <= 2, "-2 to 2"),
        ("repetition_penalty", sampling.repetition_penalty, 0 < sampling.repetition_penalty <= 10, "1 for none"),
        ("n", sampling.n, 1 <= sampling.n <= MOST_ANSWERS, f"1 to {MOST_ANSWERS}"),
        ("logprobs", sampling.logprobs, 0 <= (sampling.logprobs or 0) <= MOST_LOGPROBS, f"0 to {MOST_LOGPROBS}"),
    ):
        if not holds:
            raise InvalidInput(f"{name} is {value}"[:100], where=name, hint=hint)
    foreign = next((id for id, _ in sampling.logit_bias if not 0 <= id < vocabulary), None)
    if foreign is not None:
        raise InvalidInput(
            f"logit_bias names token {foreign}, the vocabulary ends at {vocabulary - 1}",
            where="logit_bias",
            hint="its keys are ids of this model's own tokenizer",
        )
    if not all(-100 <= bias <= 100 for _, bias in sampling.logit_bias):
        raise InvalidInput("a logit bias is beyond -100 to 100", where="logit_bias")
    if sampling.ignore_end and sampling.format is not None:
        raise InvalidInput("an answer with a form ends where the form does", where="ignore_eos", hint="leave it out")
