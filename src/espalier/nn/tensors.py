"""NumPy arrays of a pack as tensors where the model is. Knows nothing else."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor


def tensor_of(array: npt.NDArray[Any], beside: Tensor) -> Tensor:
    """The array as a tensor on `beside`'s device; on the CPU the memory is shared."""
    return torch.from_numpy(array).to(beside.device, non_blocking=True)
