"""`Transformer`: the general backbone, over transformers' own modelling code; any causal language model it knows.

A pack goes through the model's decoder as one row with its positions, and attention is computed segment by segment
(nn/packmask). An architecture that mixes tokens in any other way (recurrence, convolution, an attention of its own)
is computed one sequence at a time, which is slower and as exact. Which of the two it is, is decided by what the model
declares and then proved on a small pack before the first step (nn/probe), so that no architecture trains silently
wrong. Knows no objective and no optimizer; the head is handed out, never computed.

Legend: t positions, r rows, m model width, s segments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from espalier.core.errors import UnsupportedModel
from espalier.nn.crossentropy import Head
from espalier.nn.dropout import dropping
from espalier.nn.linear import AdapterLinear
from espalier.nn.packmask import PACKED, packed
from espalier.nn.tensors import tensor_of
from espalier.tokens.pack import Pack

_ATTENTION_LAYERS = {"full_attention", "sliding_attention"}
_SEED: ContextVar[int] = ContextVar("espalier_pack_seed")  # of the pack this thread computes


class Transformer:
    """A model of transformers as a `Backbone`; `parameters` are what learns, by name, and live inside the model.

    `reason` is why sequences are computed one at a time, empty when packs are computed whole.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        parameters: Mapping[str, Tensor],
        autocast: torch.dtype | None = None,
        reason: str = "",
    ) -> None:
        self._model, self._decoder, self._parameters = model, find_decoder(model), parameters
        self._autocast = autocast
        self._head = _read_head(model)
        self.longest_tokens = _longest_tokens(self._decoder.config)
        self.reason = reason

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        return self._parameters

    def hidden(self, pack: Pack) -> Tensor:
        """See `Backbone.hidden`. Raises UnsupportedModel for a document longer than `longest_tokens`."""
        longest = int(pack.positions.max(initial=-1)) + 1
        if self.longest_tokens is not None and longest > self.longest_tokens:
            raise UnsupportedModel(
                f"a document has {longest} tokens; beyond {self.longest_tokens} this model turns the positions of all "
                "documents that are computed with it another way",
                hint=f"set context_tokens to {self.longest_tokens} or less",
            )
        with self._seeded(pack.seed):
            return self._whole(pack) if not self.reason else self._one_by_one(pack)

    def head(self) -> Head:
        weight, bias = self._head.weight, self._head.bias
        return Head(weight, *head_options(self._model.config.get_text_config()), bias)

    def _whole(self, pack: Pack) -> Tensor:
        """The pack as one row of the batch."""
        beside = self._head.weight
        ids, positions = tensor_of(pack.ids, beside)[None], tensor_of(pack.positions, beside)[None]
        with packed(pack.segments):
            out = self._decoder(input_ids=ids, position_ids=positions, use_cache=False)
        states: Tensor = out.last_hidden_state[0]
        return states[tensor_of(pack.rows, beside)]

    def _one_by_one(self, pack: Pack) -> Tensor:
        """Every segment behind its prefix as a sequence of its own, by the model's own attention and masks."""
        found, order = [], []
        for start, end, prefix_start, prefix_end in pack.segments.tolist():
            (places,) = np.nonzero((pack.rows >= start) & (pack.rows < end))
            if not len(places):
                continue
            last = int(pack.rows[places].max()) + 1  # what follows the last row is of no use
            ids = np.concatenate([pack.ids[prefix_start:prefix_end], pack.ids[start:last]])
            out = self._decoder(input_ids=tensor_of(ids, self._head.weight)[None], use_cache=False)
            rows = pack.rows[places] - start + prefix_end - prefix_start
            found.append(out.last_hidden_state[0][tensor_of(rows, self._head.weight)])
            order.append(places)
        return torch.cat(found)[tensor_of(np.argsort(np.concatenate(order)), self._head.weight)]

    @contextmanager
    def _seeded(self, seed: int) -> Iterator[None]:
        token = _SEED.set(seed)
        try:
            with dropping(seed), computing(self._head.weight.device, self._autocast):
                yield
        finally:
            _SEED.reset(token)


def computing(device: torch.device, autocast: torch.dtype | None) -> AbstractContextManager[Any]:
    """Inside, products are computed in `autocast`; None: in whatever type their factors have."""
    return nullcontext() if autocast is None else torch.autocast(device.type, autocast)


def recompute_layers(model: PreTrainedModel) -> None:
    """Keep the input of each layer alone, and compute the layer again in the backward pass, with the same dropout.

    Raises UnsupportedModel where the architecture has no such layers.
    """
    if not model.supports_gradient_checkpointing:
        raise UnsupportedModel(
            f"{model.config.model_type} cannot compute its layers again", hint="set `checkpointing: false`"
        )
    model.activation_checkpointing_enable({"use_reentrant": False, "context_fn": _again})
    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.training = True  # this layer's own switch, not that of the dropouts inside


def _again() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Contexts of a layer's first and second computation: the second happens after `hidden` has returned."""
    return nullcontext(), dropping(_SEED.get())


def settle_types(model: PreTrainedModel, parameters: Mapping[str, Tensor], dtype: torch.dtype) -> torch.dtype | None:
    """Make what learns float32, in place; returns what autocast is to compute products in, None for none.

    A model of whose own weights none learns is put into `dtype` instead: adapters convert by themselves.
    """
    for parameter in parameters.values():
        parameter.data = parameter.data.float()
    beside = {id(part) for m in model.modules() if isinstance(m, AdapterLinear) for part in m.parts().values()}
    if any(id(parameter) not in beside for parameter in parameters.values()):
        return None if dtype == torch.float32 else dtype
    for weight in model.parameters():
        if id(weight) not in beside and weight.is_floating_point():
            weight.data = weight.data.to(dtype)
    return None


def find_decoder(model: PreTrainedModel) -> PreTrainedModel:
    """The part that ends in hidden states. Raises UnsupportedModel when the head cannot be told from it."""
    decoder = model.get_decoder()
    if decoder is model:
        decoder = getattr(model, "model", model)
    if decoder is model or not isinstance(decoder, PreTrainedModel):
        raise UnsupportedModel(f"{model.config.model_type} has no decoder apart from its head")
    return decoder


def why_unpacked(model: PreTrainedModel) -> str:
    """Why packs of this architecture cannot be computed whole, as far as it declares it; empty when nothing says so."""
    config = find_decoder(model).config
    kinds = set(getattr(config, "layer_types", None) or ()) - _ATTENTION_LAYERS
    if kinds:
        return f"it has layers of another kind than attention: {', '.join(sorted(kinds))}"
    if model._is_stateful:
        return "its layers carry a state from token to token"
    model.set_attn_implementation(PACKED)
    if config._attn_implementation != PACKED:
        return "its attention cannot be replaced"
    return ""


def head_options(config: Any) -> tuple[float | None, float]:
    """softcap and scale of the logits as a config has them: Gemma's softcap, Cohere's factor, Granite's divisor."""

    def first(*names: str) -> float | None:
        found = (getattr(config, name, None) for name in names)
        return next((float(number) for number in found if number), None)

    softcap = first("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
    return softcap, (first("logit_scale", "lm_head_multiplier") or 1.0) / (first("logits_scaling") or 1.0)


def _read_head(model: PreTrainedModel) -> nn.Linear:
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        found = "none" if head is None else f"a {type(head).__name__}"
        raise UnsupportedModel(
            f"{model.config.model_type} needs a plain linear layer for a head, and has {found}",
            hint="adapters cannot stand on the head: leave it out of `targets`",
        )
    return head


def _longest_tokens(config: Any) -> int | None:
    """Up to what length rotary angles depend on nothing but the position; None: always.

    `dynamic` and `longrope` choose the angles of everything in a forward by its longest position, and keep them.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = rope.values() if rope and all(isinstance(value, dict) for value in rope.values()) else [rope]
    limits = []
    for kind in kinds:
        if kind.get("rope_type") in {"dynamic", "longrope"}:
            before = kind.get("original_max_position_embeddings") if kind["rope_type"] == "longrope" else None
            limits.append(int(before or config.max_position_embeddings))
    return min(limits, default=None)
