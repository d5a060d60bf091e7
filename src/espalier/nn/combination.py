"""How several adapters become one, as a recipe says it. No torch: a recipe is read in milliseconds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from espalier.core.types import Spec

Combination = Literal[
    "cat", "svd", "linear", "ties", "ties_svd", "dare_linear", "dare_linear_svd", "dare_ties", "dare_ties_svd"
]


class CombineSpec(Spec):
    """How several adapters become one: PEFT's `add_weighted_adapter`, with what it draws drawn from a seed."""

    how: Combination = Field(
        "cat",
        description="cat: the exact sum, ranks added up; svd: its best of `rank`; linear, ties (arXiv:2306.01708), "
        "dare_* (arXiv:2311.03099): on A and B apart, a rough one that keeps the rank; *_svd: on B A, then its best",
    )
    weights: tuple[float, ...] = Field((), description="how much of each adapter; empty = equal shares that sum to 1")
    density: float = Field(0.5, gt=0, le=1, description="ties, dare: the share of each adapter's numbers that is kept")
    rank: int = Field(0, ge=0, description="svd: rank of the result; 0 = the largest of the adapters'")
    seed: int = Field(0, ge=0, description="dare: what it drops is drawn from this and the layer's name")
