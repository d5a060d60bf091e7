"""Before the first step: does a backbone compute what plain transformers computes? Proved on a small pack.

The pack holds three documents and one that branches; transformers computes each sequence alone, with attention of its
own and all logits. Then one document's tokens are changed, and nothing may change in the others. Knows no data: the
tokens are made up. What shows only at great length (windows, rotary scaling) is not its business: windows come from
the model's own mask code, and `Transformer` refuses the lengths at which rotary angles change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from espalier.core.errors import UnsupportedModel
from espalier.core.events import Emit, Event, ignore
from espalier.nn.packmask import PACKED, register
from espalier.nn.tensors import tensor_of
from espalier.nn.transformer import Transformer, computing, find_decoder, recompute_layers, settle_types, why_unpacked
from espalier.tokens.mask import Tokenized
from espalier.tokens.pack import Pack, Strip, join, lay, lay_branches

# Largest difference allowed, relative to the norm: rounding of the type, with room for other orders of summation.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}

# What modelling code of hundreds of architectures fails with when it is asked for something it was not written for.
_FAILURES = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, UnsupportedModel, ValueError)


def transformer_backbone(
    model: PreTrainedModel,
    parameters: Mapping[str, Tensor],
    dtype: torch.dtype | None = None,
    *,
    checkpointing: bool = False,
    emit: Emit = ignore,
) -> Transformer:
    """The general backbone of `model`: whole packs, or else one sequence at a time, whichever is proved to be right.

    `dtype` is what products are computed in; None: what the model is in. What learns is float32 (made so where it is
    not): of the model's own weights by autocast; beside them, as adapters, with the frozen weights put into `dtype`.
    `checkpointing` keeps layer inputs alone and computes the rest again.
    Emits `train.unpacked` with the reason where sequences have to go one at a time. Raises UnsupportedModel for a model
    that neither way computes as transformers does. Leaves the model in evaluation mode, set to the attention it needs.
    """
    register()
    model.eval()  # dropout of adapters is drawn by the pack's seed; any other dropout is off
    backbone = _probe(model, parameters, settle_types(model, parameters, dtype or model.dtype))
    if checkpointing:
        recompute_layers(model)
    if backbone.reason:
        emit(Event("train.unpacked", {"model": model.config.model_type, "reason": backbone.reason}))
    return backbone


def _probe(model: PreTrainedModel, parameters: Mapping[str, Tensor], autocast: torch.dtype | None) -> Transformer:
    own = model.config._attn_implementation
    if own == PACKED:  # it has been a backbone before
        own = "eager"
        model.set_attn_implementation(own)
    try:
        strips = _strips(model)
        with computing(model.device, autocast):
            wanted = _reference(model, join(strips))
        reason = why_unpacked(model)
        if not reason:
            model.set_attn_implementation(PACKED)
            backbone = Transformer(model, parameters, autocast)
            reason = _difference(backbone, strips, *wanted, autocast or torch.float64)
            if not reason:
                return backbone
        model.set_attn_implementation(own)
        backbone = Transformer(model, parameters, autocast, reason)
        failure = _difference(backbone, strips, *wanted, autocast or torch.float64)
    except _FAILURES as error:
        model.set_attn_implementation(own)
        failure = _first_line(error)
    if failure:
        raise UnsupportedModel(
            f"{model.config.model_type} cannot be trained exactly here: {failure}",
            hint="train it with another tool, or ask for this architecture",
        )
    return backbone


def _strips(model: PreTrainedModel) -> list[Strip]:
    vocabulary = model.get_input_embeddings().weight.shape[0]

    def ids(start: int, size: int) -> list[int]:
        return [(start + 37 * i + i * i) % vocabulary for i in range(size)]

    plain = [
        lay(Tokenized(str(n), ids(11 * n + 3, size), [0.0] + [1.0] * (size - 1))) for n, size in enumerate((7, 2, 12))
    ]
    branches = [(ids(23, 4), [1.0] * 4), (ids(29, 6), [1.0] * 6)]
    return [*plain, lay_branches("branches", ids(17, 5), branches)]


def _reference(model: PreTrainedModel, pack: Pack) -> tuple[Tensor, Tensor]:
    """Final states and logits of every row, each sequence alone through the whole model. (r, m), (r, c)"""
    decoder, beside = find_decoder(model), model.get_input_embeddings().weight
    states, logits = {}, {}
    with torch.no_grad():
        for start, end, prefix_start, prefix_end in pack.segments.tolist():
            ids = np.concatenate([pack.ids[prefix_start:prefix_end], pack.ids[start:end]])
            sequence = tensor_of(ids, beside)[None]
            state, scores = decoder(input_ids=sequence, use_cache=False), model(input_ids=sequence, use_cache=False)
            for row in range(start, end):
                place = row - start + prefix_end - prefix_start
                states[row], logits[row] = state.last_hidden_state[0, place], scores.logits[0, place]
    rows = pack.rows.tolist()
    return torch.stack([states[row] for row in rows]), torch.stack([logits[row] for row in rows])


def _difference(
    backbone: Transformer, strips: list[Strip], states: Tensor, logits: Tensor, autocast: torch.dtype
) -> str:
    """What the backbone computes otherwise than the reference, in a few words; empty when it is the same."""
    pack, head = join(strips), backbone.head()
    try:
        with torch.no_grad():
            found = backbone.hidden(pack)
            changed = backbone.hidden(_changed(pack, len(strips[0])))
            scores = functional.linear(found.to(head.matrix.dtype), head.matrix, head.bias).float() * head.scale
    except _FAILURES as error:
        return _first_line(error)
    if head.softcap is not None:
        scores = torch.tanh(scores / head.softcap) * head.softcap
    tolerance = max(_TOLERANCE.get(dtype, 0.0) for dtype in (found.dtype, states.dtype, autocast))
    behind = len(strips[0].rows)
    if not _distance(changed[behind:], found[behind:]) <= tolerance * 1e-2:
        return "documents of a pack see one another"
    if not _distance(found, states) <= tolerance:
        return "its states in a pack are not those of each sequence alone"
    if not _distance(scores, logits) <= tolerance:
        return "its logits are not its head's product with the final states"
    return ""


def _changed(pack: Pack, tokens: int) -> Pack:
    """The pack with other ids in its first `tokens` positions."""
    ids = pack.ids.copy()
    ids[:tokens] = ids[:tokens][::-1] // 2 + 1
    return replace(pack, ids=ids)


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).norm() / other.double().norm().clamp_min(1e-30))


def _first_line(error: Exception) -> str:
    return (getattr(error, "message", "") or str(error) or type(error).__name__).strip().split("\n")[0]
