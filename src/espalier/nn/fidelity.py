"""How far a base that was made smaller answers as its original: the same texts through both, token by token.

For each text, over the tokens of its answers: the perplexities' ratio, how often both put the same token first, and the
Kullback-Leibler divergence of what comes next (original against quantised, nats a token), in float32. Knows no store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from espalier.core.errors import InvalidInput
from espalier.core.types import Example
from espalier.nn.base import LoadedBase
from espalier.tokens.mask import tokenize


@dataclass(frozen=True, slots=True)
class Fidelity:
    """One text's figures; of two models that are the same 1, 1 and 0."""

    tokens: int
    perplexity_ratio: float
    agreement: float
    divergence: float


def compare_bases(original: LoadedBase, other: LoadedBase, examples: Iterable[Example]) -> Iterator[Fidelity]:
    """The figures of each example, in order; both bases are held in memory.

    Raises InvalidInput for two tokenizers or templates, and for an example without a token to predict.
    """
    if (original.tokenizer_digest, original.template_digest) != (other.tokenizer_digest, other.template_digest):
        raise InvalidInput(
            f"{other.spec} has another tokenizer or template than {original.spec}", hint="quantise this original again"
        )
    context = min(original.context_tokens, other.context_tokens)
    for example in examples:
        document = tokenize(original.tokenizer, example, context_tokens=context)
        places = [i for i, weight in enumerate(document.weights) if weight > 0 and i > 0]
        if not places:
            raise InvalidInput("it has no answer to predict", where=f"example {example.id}")
        told, expected = (_next_logp(base, document.ids, places) for base in (other, original))
        yield _compare(expected, told, torch.tensor([document.ids[i] for i in places]))


def _compare(expected: Tensor, told: Tensor, targets: Tensor) -> Fidelity:
    """expected and told (t, v): log-probabilities of the original and of the other; targets (t)."""
    losses = [float(-logp.gather(1, targets[:, None]).mean()) for logp in (told, expected)]
    return Fidelity(
        tokens=len(targets),
        perplexity_ratio=float(torch.tensor(losses[0] - losses[1]).exp()),
        agreement=float((told.argmax(-1) == expected.argmax(-1)).float().mean()),
        divergence=max(0.0, float((expected.exp() * (expected - told)).sum(-1).mean())),
    )


def _next_logp(base: LoadedBase, ids: list[int], places: list[int]) -> Tensor:
    """log P of every token (v) at each of `places`, given what stands before it: (t, v) float32 on the CPU."""
    with torch.inference_mode():
        rows = torch.tensor([i - 1 for i in places], device=base.device)
        given = torch.tensor([ids], device=base.device)
        logits: Tensor = base.model(input_ids=given, use_cache=False, logits_to_keep=rows).logits
        return logits[0].float().log_softmax(-1).cpu()
