"""What one engine does in a minute with all its slots busy: the size of the cake that reservations are cut from."""

from __future__ import annotations

import time
from dataclasses import dataclass

from espalier.core.types import Message, SamplingSpec
from espalier.serve.engine import Engine

PROMPT_WORDS = 48
ANSWER_TOKENS = 48


@dataclass(frozen=True, slots=True)
class Measured:
    """Prompts and answers together."""

    tokens_per_minute: int
    prompt_tokens: int  # of one request, on average
    answer_tokens: int
    seconds: float


def measure_engine(engine: Engine, slots: int, seconds: float) -> Measured:
    """Answer batches of `slots` requests for about `seconds`, no two prompts alike; the first batch only warms up."""
    number, prompts, answers, requests = 0, 0, 0, 0
    sampling = SamplingSpec(max_tokens=ANSWER_TOKENS, ignore_end=True)
    began_s = 0.0
    while not began_s or time.perf_counter() - began_s < seconds:
        batch = []
        for _ in range(slots):
            number += 1
            batch.append([Message("user", " ".join(f"{number}-{word}" for word in range(PROMPT_WORDS // 4)))])
        found = engine.generate(batch, sampling)
        if not began_s:
            began_s = time.perf_counter()
            continue
        prompts += sum(each.usage.prompt_tokens for each in found)
        answers += sum(each.usage.completion_tokens for each in found)
        requests += slots
    spent_s = time.perf_counter() - began_s
    return Measured(
        round((prompts + answers) / spent_s * 60), round(prompts / requests), round(answers / requests), spent_s
    )
