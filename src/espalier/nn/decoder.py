"""`LeanDecoder`: the backbone of dense Llama-like families, several times faster on a CPU than general modelling code.

What makes the difference: a pack has no padding; q, k, v are one product, gate and up another; a frozen weight has no
gradient, what lies below the first trained layer keeps nothing; the last layer goes on with the rows that carry loss
alone; forward and backward are one autograd node, whose memory is freed layer by layer. The weights keep the names
transformers gives them, so what it trains loads there untouched. `lean_shape` (nn/shape) says for which configurations
it computes what transformers does. Knows no objective, no optimizer and no file.

Legend: t positions of a pack, r its rows, m model width, c vocabulary.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espalier.core.errors import Conflict
from espalier.nn.crossentropy import Head
from espalier.nn.layer import Gain, Kept, Layer, Scene
from espalier.nn.projections import Gradients
from espalier.nn.shape import LeanShape
from espalier.nn.table import Table
from espalier.nn.tensors import tensor_of
from espalier.tokens.pack import Pack

# Products are compiled for their number of rows, at about half a millisecond each and 35 of them to a pack: numbers of
# tokens and rows are rounded up to whole grains, so that most packs find theirs made.
GRAIN = 32


@dataclass(slots=True)
class Tape:
    """What a forward pass leaves for backward."""

    layers: list[Kept | Tensor] = field(default_factory=list)  # a Tensor: a layer's input alone, to compute it again
    scene: Scene | None = None
    end: Tensor | None = None  # (r, m) before the final norm


class LeanDecoder:
    """A `Backbone` over layers laid out for products in `dtype`; `parameters` are float32 and may change in place.

    `stream` is the type of the residual sums. `recompute` keeps only each layer's input and computes it twice.
    """

    def __init__(
        self,
        layers: tuple[Layer, ...],
        table: Table,
        head: Table,
        final_norm: Gain,
        shape: LeanShape,
        parameters: Mapping[str, Tensor],
        *,
        stream: torch.dtype,
        recompute: bool = False,
    ) -> None:
        self._layers, self._table, self._head, self._final_norm = layers, table, head, final_norm
        self._shape, self._stream, self._recompute = shape, stream, recompute
        self._parameters = dict(parameters)
        self._lock = threading.Lock()
        self._seen = -1

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        return self._parameters

    def hidden(self, pack: Pack) -> Tensor:
        """The final normed hidden states (r, m) of `pack.rows`, in the compute type."""
        self._refresh()
        if torch.is_grad_enabled() and self._parameters:
            return _Decode.apply(self, pack, *self._parameters.values())  # type: ignore[no-any-return, no-untyped-call]
        return self.run(pack, None)

    def head(self) -> Head:
        return Head(self._head.matrix())

    def run(self, pack: Pack, tape: Tape | None) -> Tensor:
        """`hidden` without autograd; what backward needs is laid on `tape`, from the first layer that learns on."""
        scene, first = self._scene(pack), self._lowest()
        x = self._table.rows(scene.ids).to(self._stream)
        for index, layer in enumerate(self._layers):
            answer, kept = layer.forward(x, scene)
            if tape is not None and index >= first:
                tape.layers.append(x if self._recompute else kept)
            x = answer
        if tape is not None:
            tape.scene, tape.end = scene, x
        y = self._final_norm.norm(x, torch.empty(x.shape, dtype=scene.dtype, device=x.device))
        return y[: len(pack.rows)]

    def run_back(self, tape: Tape, dy: Tensor) -> Gradients:
        """The gradients of all that learns, for dy (r, m); the tape is used up."""
        scene, x, into = tape.scene, tape.end, Gradients()
        if scene is None or x is None:
            raise Conflict("this pack's backward has been computed already", hint="compute its loss again")
        tape.scene = tape.end = None
        d = torch.empty_like(x)
        self._final_norm.pull(_lengthened(dy, len(x)), x, d, into, add=False)
        first, bottom = self._lowest(), self._table.learns
        for index in range(len(self._layers) - 1, first - 1, -1):
            layer, kept = self._layers[index], tape.layers.pop()
            if isinstance(kept, Tensor):
                kept = layer.forward(kept, scene)[1]
            d = layer.backward(d, kept, scene, into, further=bottom or index > first)
        if bottom:
            self._table.learn(scene.ids, d, into)
        return into

    def _scene(self, pack: Pack) -> Scene:
        """The pack where the weights are, filled up to whole grains with a segment and rows that nothing asks for."""
        table, tokens = self._table.copy, pack.tokens
        filled = -(-tokens // GRAIN) * GRAIN
        segments = pack.segments
        if filled > tokens:
            segments = np.concatenate([segments, np.array([[tokens, filled, 0, 0]], dtype=np.int32)])
        ids, positions = (np.pad(array, (0, filled - tokens)) for array in (pack.ids, pack.positions))
        rows = np.pad(pack.rows, (0, -len(pack.rows) % GRAIN))
        rotation = self._shape.rotation(tensor_of(positions, table))
        return Scene(tensor_of(ids, table), segments, rotation, tensor_of(rows, table), table.dtype)

    def _lowest(self) -> int:
        """The lowest layer backward comes to."""
        if self._table.learns:
            return 0
        return next((index for index, layer in enumerate(self._layers) if layer.learns), len(self._layers))

    def _refresh(self) -> None:
        """Copy what an optimizer changed into the compute type, once a step: torch counts a tensor's changes."""
        with self._lock:
            seen = sum(tensor._version for tensor in self._parameters.values())
            if seen == self._seen:
                return
            for layer in self._layers:
                layer.refresh()
            self._table.refresh()
            self._head.refresh()
            self._seen = seen


class _Decode(torch.autograd.Function):
    """The whole decoder as one node of autograd's graph."""

    @staticmethod
    def forward(ctx: Any, decoder: LeanDecoder, pack: Pack, *parameters: Tensor) -> Tensor:
        ctx.decoder, ctx.tape = decoder, Tape()
        return decoder.run(pack, ctx.tape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        decoder: LeanDecoder = ctx.decoder
        found = decoder.run_back(ctx.tape, grads[0])
        return None, None, *(found.get(name) for name in decoder.parameters)


def _lengthened(dy: Tensor, rows: int) -> Tensor:
    """dy with rows of zeros behind it."""
    if len(dy) == rows:
        return dy
    filled = dy.new_zeros((rows, dy.shape[1]))
    filled[: len(dy)] = dy
    return filled
