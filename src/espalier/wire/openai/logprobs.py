"""A text scored by the model behind an endpoint: `prompt_logprobs`, vLLM's extension of OpenAI's completions.

https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html. Ids go in and ids come out, so no text is cut
anew on the way. Knows no network.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from espalier.core.errors import EspalierError, InvalidInput


def encode_prompt_logprobs(model: str, ids: Sequence[int], k: int) -> dict[str, Any]:
    """The JSON object that asks for the k likeliest ids at each place of `ids`; one token has to be written, too."""
    return {"model": model, "prompt": list(ids), "max_tokens": 1, "temperature": 0, "prompt_logprobs": k}


def decode_prompt_logprobs(body: bytes) -> list[dict[int, float]]:
    """By place, log-probabilities by id; none at the first. Raises InvalidInput where the answer holds none,
    EspalierError when it is no completion."""
    try:
        choice = json.loads(body)["choices"][0]
    except (ValueError, LookupError, TypeError):
        raise EspalierError("the endpoint's answer is no completion") from None
    places = choice.get("prompt_logprobs") if isinstance(choice, dict) else None
    if not isinstance(places, list):
        raise InvalidInput(
            "the endpoint tells no log-probabilities of a given text", hint="serve the teacher with vLLM"
        )
    try:
        found = [{int(id): float(one["logprob"]) for id, one in (place or {}).items()} for place in places]
    except (AttributeError, LookupError, TypeError, ValueError):
        raise EspalierError("the endpoint's log-probabilities are not by token id") from None
    if any(math.isnan(value) or value > 1e-3 for place in found for value in place.values()):
        raise EspalierError("the endpoint's log-probabilities are no logarithms of probabilities")
    return found
