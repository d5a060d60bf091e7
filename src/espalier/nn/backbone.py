"""`Backbone`: a model up to its hidden states, as training sees it. Knows no objective, no data and no optimizer.

The head is not part of it: logits of all positions are the largest thing a language model can compute, and a loss needs
them at few positions. See nn/crossentropy for what is done with a head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from espalier.nn.crossentropy import Head
from espalier.tokens.pack import Pack


class Backbone(Protocol):
    """What is trained: named float32 tensors, and the hidden states that come of them."""

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """What learns, by name."""
        ...

    def hidden(self, pack: Pack) -> Tensor:
        """The final normed hidden states (r, m) of `pack.rows`; safe to call from several threads at once."""
        ...

    def head(self) -> Head:
        """The language model's output matrix, (c, m)."""
        ...
