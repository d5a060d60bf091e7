"""What training minimises: pure functions of per-token log-probabilities. Knows no model and no data.

`nn/crossentropy` computes `likelihood` fused with the head, gradient included; a test holds the two together.
"""

from __future__ import annotations

from torch import Tensor


def likelihood(logp: Tensor, weights: Tensor) -> Tensor:
    """Weighted negative log-likelihood, a scalar; fine-tuning and continued pretraining differ in `weights` alone.

    logp (r,) of the target tokens, weights (r,), normalised by the caller over the whole step.
    """
    return -(logp * weights).sum()
