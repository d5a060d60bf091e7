"""The losses by their names in TRL, for recipes and for code. No torch: a recipe is read in milliseconds."""

from __future__ import annotations

from typing import Literal

DpoLoss = Literal[
    "sigmoid", "sigmoid_norm", "hinge", "ipo", "robust", "exo_pair", "nca_pair", "sppo_hard", "apo_zero", "apo_down"
]
KtoLoss = Literal["kto", "apo_zero_unpaired"]
