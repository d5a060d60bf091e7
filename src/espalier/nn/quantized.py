"""Frozen weights in 4 or 8 bits, dense only while they are multiplied: the base of a QLoRA.

nf4: Dettmers et al. 2023, https://arxiv.org/abs/2305.14314: blocks of 64 numbers, each to the nearest of 16 quantiles
of a normal distribution times the block's largest; `double` keeps those largest in 8 bits too (blocks of 256, the
dynamic map of https://arxiv.org/abs/1511.04561). Codes and layout are bitsandbytes', to the bit. int8: each row's
largest is 127.

Plain torch, on any device; on a GPU bitsandbytes' kernels do the nf4 where it is installed (`[qlora]`). Its int8
product rounds the activations too, so int8 is plain torch there as well. What is computed is exact for the dequantised
weights, forward and backward. Knows linear layers and their matrices, no adapter.

Bits a weight: nf4 4.5, nf4 double 4.127, int8 8 + 32 / in.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom
from transformers import PreTrainedModel

from espalier.core.errors import MissingExtra
from espalier.nn.frozen import Dequantises, dense, settled

Scheme = Literal["nf4", "int8"]

BLOCK = 64  # numbers that share a largest one; QLoRA's
_BLOCK_OF_LARGEST = 256
# The 16 values of NF4, as in appendix E of the paper and in bitsandbytes.
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
_FEW_ROWS = 8  # above this, making the matrix dense costs less than torch's int8 product
_QUANTISE_AT_ONCE = 1 << 22  # numbers; the temporaries of quantising stay below 100 MB


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a model's weights take in memory, measured."""

    parameters: int
    bytes: int
    quantised_parameters: int
    quantised_bytes: int

    @property
    def bits_per_quantised_weight(self) -> float:
        return 8 * self.quantised_bytes / self.quantised_parameters if self.quantised_parameters else 0.0


class Nf4Matrix(nn.Module):
    """A matrix in NF4: `codes` two to a byte, the even one high; `largest` of each block, in 8 bits when `double`."""

    codes: Tensor
    largest: Tensor

    def __init__(self, weight: Tensor, *, double: bool = True) -> None:
        super().__init__()
        self.shape = weight.shape
        codes, largest = quantise_nf4(weight)
        self.register_buffer("codes", codes)
        self.nested = double
        if double:
            offset = largest.mean()
            largest, scales = _quantise_blocks(largest - offset, _dynamic_map(), _BLOCK_OF_LARGEST)
            self.register_buffer("scales", scales)
            self.register_buffer("offset", offset)
        self.register_buffer("largest", largest)

    def dequantise(self, dtype: torch.dtype) -> Tensor:
        """The matrix (o, i) in `dtype`, computed in float32."""
        largest = self.largest
        if self.nested:
            values = _dynamic_map().to(largest.device)[largest.int()]
            largest = _times_blocks(values, self.get_buffer("scales"), _BLOCK_OF_LARGEST) + self.get_buffer("offset")
        count = math.prod(self.shape)
        # Both numbers of a byte at once: one look-up in a table of 256 pairs instead of shifts and two look-ups.
        values = F.embedding(self.codes.int(), _pairs().to(self.codes.device)).view(-1)[:count]
        return _times_blocks(values, largest, BLOCK).view(self.shape).to(dtype)


class Int8Matrix(nn.Module):
    """A matrix in whole numbers from -127 to 127, each row with its own largest."""

    codes: Tensor
    largest: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.shape = weight.shape
        rows = max(1, _QUANTISE_AT_ONCE // weight.shape[1])
        parts = [_quantise_rows(part.float()) for part in torch.split(weight, rows)]
        self.register_buffer("codes", torch.cat([codes for codes, _ in parts]))
        self.register_buffer("largest", torch.cat([largest for _, largest in parts]))

    @classmethod
    def stack(cls, matrices: Sequence[Int8Matrix]) -> Int8Matrix:
        """All under one another, as one; each keeps its own as views of the whole, so nothing is held twice."""
        whole = cls.__new__(cls)
        nn.Module.__init__(whole)
        rows = [matrix.shape[0] for matrix in matrices]
        whole.shape = torch.Size((sum(rows), matrices[0].shape[1]))
        for name in ("codes", "largest"):
            joined = torch.cat([matrix.get_buffer(name) for matrix in matrices])
            whole.register_buffer(name, joined)
            for matrix, view in zip(matrices, torch.split(joined, rows), strict=True):
                setattr(matrix, name, view)
        return whole

    def multiply_few(self, x: Tensor) -> Tensor | None:
        """x (t, i) times the transposed matrix, without making it dense; None where torch has no faster kernel for it.

        torch's int8 weight product reads one byte a weight, which pays for the few rows of answers under way. Its
        scale would be rounded to bfloat16, the same error for a whole row: the sums are scaled afterwards instead.
        """
        kernel = getattr(torch, "_weight_int8pack_mm", None)
        if kernel is None or x.dtype != torch.bfloat16 or x.device.type != "cpu" or len(x) > _FEW_ROWS:
            return None
        x = x.contiguous()
        # It reads whole vectors from aligned addresses and asks nothing: other shapes and places would end the process.
        if self.shape[1] % 32 or self.shape[0] % 16 or (x.data_ptr() | self.codes.data_ptr()) % 64:
            return None
        sums: Tensor = kernel(x, self.codes, torch.ones_like(self.largest, dtype=x.dtype))
        return sums.float().mul_(self.scales).to(x.dtype)

    def dequantise(self, dtype: torch.dtype) -> Tensor:
        """The matrix (o, i) in `dtype`, computed in float32."""
        return self.codes.float().mul_(self.scales[:, None]).to(dtype)

    @property
    def scales(self) -> Tensor:
        """What the codes of each row are multiplied by, (o) float32."""
        return self.largest / 127


class BitsandbytesNf4(nn.Module):
    """A matrix in NF4 on a GPU, by bitsandbytes' kernels: `functional.quantize_4bit` and `dequantize_4bit`.

    Raises MissingExtra.
    """

    def __init__(self, weight: Tensor, *, double: bool = True) -> None:
        super().__init__()
        self.shape = weight.shape
        self._kernels = _bitsandbytes()
        codes, self._state = self._kernels.quantize_4bit(
            weight.contiguous(), blocksize=BLOCK, compress_statistics=double, quant_type="nf4"
        )
        self.register_buffer("codes", codes)

    def dequantise(self, dtype: torch.dtype) -> Tensor:
        """The matrix (o, i) in `dtype`."""
        made: Tensor = self._kernels.dequantize_4bit(self.codes, quant_state=self._state)
        return made.view(self.shape).to(dtype)

    @property
    def state_bytes(self) -> int:
        """What stands beside the codes."""
        own = [self._state.absmax, getattr(self._state, "offset", None)]
        nested = getattr(self._state, "state2", None)
        own += [nested.absmax] if nested is not None else []
        return sum(t.numel() * t.element_size() for t in own if t is not None)


class _FrozenProduct(torch.autograd.Function):
    """y = x W^T + bias; W dense twice, for y and for dx, and never in between."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Dequantises, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        return F.linear(x, dense(weight, x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0] @ dense(ctx.weight, gradients[0].dtype), None, None


class QuantizedLinear(nn.Module):
    """In the place of a frozen `nn.Linear`: its weights quantised, its bias as it was."""

    def __init__(self, layer: nn.Linear, scheme: Scheme, *, double: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight = quantise_matrix(layer.weight.detach(), scheme, double=double)
        self.bias = None if layer.bias is None else layer.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:  # (..., i) -> (..., o)
        y: Tensor
        if not torch.is_grad_enabled() and isinstance(self.weight, Int8Matrix):
            few = self.weight.multiply_few(x.reshape(-1, x.shape[-1]))
            if few is not None:
                return (few if self.bias is None else few + self.bias).view(*x.shape[:-1], -1)
        with settled(x) as x:
            y = _FrozenProduct.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return y


def quantise_matrix(weight: Tensor, scheme: Scheme, *, double: bool = True) -> nn.Module:
    """`weight` (o, i) as a module with `shape` and `dequantise(dtype)`; by bitsandbytes on a GPU that has it."""
    if scheme == "int8":
        return Int8Matrix(weight)
    if weight.is_cuda and importlib.util.find_spec("bitsandbytes"):
        return BitsandbytesNf4(weight, double=double)
    return Nf4Matrix(weight, double=double)


def quantise_model(
    model: nn.Module, scheme: Scheme, *, double: bool = True, device: torch.device | None = None
) -> Footprint:
    """Put a `QuantizedLinear` in place of every linear layer of `model` but its head, one after another.

    Everything is frozen; embeddings, gains and biases stay as they are. Call it before adapters are attached. Each
    layer goes to `device` by itself, so that only its quantised weights stay there.
    """
    model.requires_grad_(False)
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    found = [n for n, layer in model.named_modules() if type(layer) is nn.Linear and layer is not head]
    for name in found:
        parent, _, leaf = name.rpartition(".")
        layer = model.get_submodule(name).to(device)
        quantised = QuantizedLinear(layer, scheme, double=double)  # type: ignore[arg-type]
        setattr(model.get_submodule(parent), leaf, quantised)
        layer._parameters["weight"] = None  # whoever still holds the layer holds no weights
    return measure_footprint(model)


def measure_footprint(model: nn.Module) -> Footprint:
    """Parameters and bytes of a model, quantised or not; tied weights count once."""
    held = {id(t): t for t in model.parameters()}
    parameters = sum(t.numel() for t in held.values())
    bytes_ = sum(t.numel() * t.element_size() for t in held.values())
    quantised = quantised_bytes = 0
    for layer in model.modules():
        if isinstance(layer, QuantizedLinear):
            quantised += math.prod(layer.weight.shape)  # type: ignore[arg-type]
            quantised_bytes += sum(t.numel() * t.element_size() for t in layer.weight.buffers())
            quantised_bytes += layer.weight.state_bytes if isinstance(layer.weight, BitsandbytesNf4) else 0
    return Footprint(parameters + quantised, bytes_ + quantised_bytes, quantised, quantised_bytes)


def quantise_nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (n / 2) uint8, two to a byte, and each block's largest (n / 64) float32; n numbers, row after row."""
    codes, largest = [], []
    for part in torch.split(weight.reshape(-1), _QUANTISE_AT_ONCE):
        part_codes, part_largest = _quantise_blocks(part.float(), torch.tensor(NF4), BLOCK)
        part_codes = F.pad(part_codes, (0, part_codes.numel() % 2), value=NF4.index(0.0))
        codes.append((part_codes[::2] << 4) | part_codes[1::2])
        largest.append(part_largest)
    return torch.cat(codes), torch.cat(largest)


def _quantise_blocks(values: Tensor, book: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """The nearest entry of the sorted `book` for each of `values` (n,) over its block's largest; uint8, float32."""
    count = values.numel()
    rows = F.pad(values, (0, -count % block)).view(-1, block)
    largest = rows.abs().amax(1)
    # bitsandbytes multiplies by the inverse: a division rounds differently, and a code in a million would differ.
    shares = (rows * (1.0 / largest.clamp(min=1e-38))[:, None]).clamp_(-1, 1)
    bounds = ((book[:-1] + book[1:]) / 2).to(values.device)
    return torch.bucketize(shares, bounds, out_int32=True).to(torch.uint8).view(-1)[:count], largest


def _times_blocks(values: Tensor, factors: Tensor, block: int) -> Tensor:
    """Each block of `values` (n,) times its factor."""
    count = values.numel()
    if count % block:
        return (F.pad(values, (0, -count % block)).view(-1, block) * factors[:, None]).view(-1)[:count]
    return (values.view(-1, block) * factors[:, None]).view(-1)


def _quantise_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    largest = rows.abs().amax(1)
    return torch.round(rows * (127.0 / largest.clamp(min=1e-38))[:, None]).to(torch.int8), largest


@functools.cache
def _pairs() -> Tensor:
    """The two NF4 values of every byte, (256, 2)."""
    book = torch.tensor(NF4)
    return torch.stack([book.repeat_interleave(16), book.repeat(16)], 1)


@functools.cache
def _dynamic_map() -> Tensor:
    """The 256 values of the signed dynamic 8-bit type: a sign, a unary exponent of ten, a linear fraction."""
    found = [0.0, 1.0]
    for exponent in range(7):
        edges = torch.linspace(0.1, 1, 2**exponent + 1, dtype=torch.float32)
        middles = (10.0 ** (exponent - 6)) * ((edges[:-1] + edges[1:]) / 2)
        found += [*middles.tolist(), *(-middles).tolist()]
    return torch.tensor(sorted(found), dtype=torch.float32)


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes.functional
    except ImportError as error:
        raise MissingExtra("bitsandbytes is not installed", hint="pip install 'espalier[qlora]'") from error
    return bitsandbytes.functional
