"""What of a base learns, and how it is computed and written: an adapter, every weight, or nothing but a head.

Chooses the lean decoder where it computes the architecture exactly, transformers' own code elsewhere. Knows no data, no
objective and no loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from espalier.core.errors import InvalidInput
from espalier.core.events import Emit, ignore
from espalier.nn.adapters import attach_adapters, continue_adapters, save_adapter
from espalier.nn.assembly import adapted_decoder, dense_decoder, is_covered
from espalier.nn.backbone import Backbone
from espalier.nn.base import LoadedBase
from espalier.nn.export import save_base
from espalier.nn.freezing import FreezeSpec
from espalier.nn.learning import choose_learning
from espalier.nn.probe import transformer_backbone
from espalier.nn.quantized import measure_footprint
from espalier.nn.shape import lean_shape
from espalier.nn.sharding import shard_layers
from espalier.nn.transformer import Transformer, settle_types
from espalier.train.machine import compute_dtype
from espalier.train.recipe import TrainSpec

# Writes what was learnt into a folder, with the digests of dataset and recipe.
Save = Callable[[Path, str, str], None]


@dataclass(frozen=True, slots=True)
class Tuned:
    """A base made ready to learn."""

    backbone: Backbone
    save: Save
    trained: int  # parameters that learn
    total: int
    path: str  # "lean" or "transformers": which code computes
    longest_tokens: int | None = None  # of a document, where the code knows a limit of its own


def tune(spec: TrainSpec, base: LoadedBase, *, start: Path | None = None, emit: Emit = ignore) -> Tuned:
    """Make `base` learn what `spec` says; `start` is the folder of an adapter to go on from.

    The model is used up. Raises InvalidInput (unknown targets, a start for full tuning), UnsupportedModel,
    DigestMismatch when `start` belongs to another base.
    """
    if spec.tune != "full" and spec.freeze != FreezeSpec():
        raise InvalidInput(
            f"freeze says what full tuning leaves, and tune: {spec.tune} leaves every weight of the base",
            hint="take `freeze` out, or tune: full; `lora.targets` and `lora.layers` choose where an adapter stands",
        )
    if spec.tune == "lora":
        return _tune_adapter(spec, base, start, emit)
    if start is not None:
        raise InvalidInput(
            f"tune: {spec.tune} cannot go on from an adapter",
            hint="merge it into its base first (espalier adapter merge), or tune: lora",
        )
    return _tune_weights(spec, base, emit)


def _tune_adapter(spec: TrainSpec, base: LoadedBase, start: Path | None, emit: Emit) -> Tuned:
    total = measure_footprint(base.model).parameters
    if start is None:
        adapters = attach_adapters(base.model, spec.lora, spec.seed)
    else:
        adapters = continue_adapters(base, start, dropout=spec.lora.dropout)
    shape = lean_shape(base.config) if adapters.is_plain and not spec.where.shard else None
    if shape is not None and not is_covered(adapters, shape):
        shape = None
    if spec.where.shard:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # the base itself waits in memory
        settle_types(base.model, adapters.named_parameters(), compute_dtype(device))
        shard_layers(base.model)
    backbone: Backbone
    if shape is None:
        backbone = transformer_backbone(
            base.model,
            adapters.named_parameters(),
            None if spec.where.shard else compute_dtype(base.device),
            checkpointing=spec.checkpointing,
            emit=emit,
        )
    else:
        backbone = adapted_decoder(base, adapters, shape, compute_dtype(base.device), recompute=spec.checkpointing)

    def save(folder: Path, dataset: str, recipe: str) -> None:
        _check_finite(adapters.named_parameters())
        save_adapter(folder, adapters, base, dataset=dataset, recipe=recipe)

    trained = sum(tensor.numel() for tensor in adapters.parameters())
    return Tuned(backbone, save, trained, total + trained, *_way(backbone))


def _tune_weights(spec: TrainSpec, base: LoadedBase, emit: Emit) -> Tuned:
    if spec.quantise != "none" and spec.tune == "full":
        raise InvalidInput(
            f"quantise: {spec.quantise} freezes the base, so all of it cannot learn",
            hint="tune: lora, or quantise: none",
        )
    learning = choose_learning(base.model, spec.freeze, nothing=spec.tune == "head")
    shape = None if spec.where.shard or spec.quantise != "none" else lean_shape(base.config)
    backbone: Backbone
    if shape is None:
        backbone = transformer_backbone(
            base.model,
            learning.parameters,
            None if spec.where.shard else compute_dtype(base.device),
            checkpointing=spec.checkpointing,
            emit=emit,
        )
    else:
        weights = dict(base.model.named_parameters())
        dtype = compute_dtype(base.device)
        backbone = dense_decoder(
            weights, shape, dtype, learning=frozenset(learning.parameters), recompute=spec.checkpointing
        )

    def save(folder: Path, dataset: str, recipe: str) -> None:
        if spec.tune == "full":  # a head alone is written by its method
            _check_finite(backbone.parameters)
            save_base(folder, base, weights=backbone.parameters, dataset=dataset, recipe=recipe)

    return Tuned(backbone, save, learning.trained, learning.total, *_way(backbone))


def _way(backbone: Backbone) -> tuple[str, int | None]:
    """Which code computes, and its limit."""
    return ("transformers", backbone.longest_tokens) if isinstance(backbone, Transformer) else ("lean", None)


def _check_finite(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise InvalidInput(f"{name} holds numbers that are not finite", hint="lower the learning rate")
