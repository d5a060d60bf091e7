"""Tensors to a safetensors file one after another, so that saving a model takes no second copy of it in memory.

The format is https://huggingface.co/docs/safetensors: a length, a JSON header, the tensors' bytes end to end. The
library's own `save` holds two copies of everything; this holds one tensor that is not on the CPU. Knows no training.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def iterate_bytes(tensors: Mapping[str, Tensor]) -> Iterator[memoryview]:
    """The file's bytes, piece by piece. The same tensors give the same bytes, whatever their order in the mapping."""
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))  # so that each is aligned
    ends = list(accumulate(tensor.numel() * tensor.element_size() for _, tensor in ordered))
    header: dict[str, Any] = {
        name: {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        for (name, tensor), start, end in zip(ordered, [0, *ends], ends, strict=False)
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield memoryview(len(text).to_bytes(8, "little") + text)
    for _, tensor in ordered:
        flat = tensor.detach().to("cpu").contiguous().reshape(-1)
        yield flat.view(torch.uint8).numpy().data
