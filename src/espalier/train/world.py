"""`Processes`: the world of several processes that train one model together, over torch.distributed.

Process r computes the packs i with i % size == r, and gives each result to all others; everybody takes them in the
packs' order, so every process holds the same sums, takes the same step and ends in the bytes one process would have
written. What is exchanged is the trained tensors' gradients, which for an adapter are small. Knows no model, no
optimizer and who started the processes (torchrun, Ray: see launch).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from espalier.core.errors import Unavailable
from espalier.train.parallel import Share, World, one_thread_each

# A pack takes seconds; whoever is silent for this long is gone, though its connection stands.
PATIENCE = timedelta(minutes=30)


class Processes:
    """This process among its peers; `local` computes its own packs on its cores."""

    def __init__(self, local: World, *, lockstep: bool = False) -> None:
        """`lockstep`: a model is spread over the processes, so all of them compute at the same time, each something."""
        self._local, self._lockstep = local, lockstep
        self._device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else None

    @property
    def rank(self) -> int:
        return dist.get_rank()

    @property
    def size(self) -> int:
        return dist.get_world_size()

    def each(self, count: int, compute: Callable[[int], Share]) -> Iterator[Share]:
        """compute(0), compute(1) ... in order on every process. Raises Unavailable when another process is gone."""
        own = self._own(count, compute)
        for start in range(0, count, self.size):
            mine = next(own, None)
            for source in range(min(self.size, count - start)):
                yield self._exchange(mine if source == self.rank else None, source)

    def _own(self, count: int, compute: Callable[[int], Share]) -> Iterator[Share]:
        """The shares of this process, one for each round it has a pack in; in lockstep, one for each round."""
        numbers = range(self.rank, count, self.size)
        if not self._lockstep:
            return self._local.each(len(numbers), lambda index: compute(numbers[index]))
        rounds = -(-count // self.size)  # who has no pack left does the last one again, and nobody takes its result
        return (compute(min(self.rank + turn * self.size, count - 1)) for turn in range(rounds))

    def _exchange(self, share: Share | None, source: int) -> Share:
        """Give `share` to all (on `source`), or take it from there."""
        try:
            return self._broadcast(share, source)
        except (RuntimeError, ValueError) as error:  # gloo and NCCL have no error class of their own
            raise Unavailable(
                f"process {self.rank + 1} of {self.size} lost process {source + 1}: "
                f"{str(error).strip().splitlines()[0]}",
                hint="start it again: it goes on from its last checkpoint",
            ) from error

    def _broadcast(self, share: Share | None, source: int) -> Share:
        told = self._broadcast_bytes(b"" if share is None else _describe(share), source)
        numbers, figures, shapes = json.loads(told)
        present = [torch.Size(shape) for shape in shapes if shape is not None]
        flat = self._empty(sum(shape.numel() for shape in present), torch.float32)
        if share is not None and present:
            torch.cat([grad.reshape(-1) for grad in share.gradients if grad is not None], out=flat)
        if present:
            dist.broadcast(flat, source)
        if share is not None:
            return share
        parts = iter(torch.split(flat, [shape.numel() for shape in present]))
        gradients = tuple(None if shape is None else next(parts).view(shape) for shape in shapes)
        return Share(tuple(numbers), figures, gradients)

    def _broadcast_bytes(self, data: bytes, source: int) -> bytes:
        length = torch.tensor([len(data)], device=self._device)
        dist.broadcast(length, source)
        held = self._empty(int(length), torch.uint8)
        if data:
            held.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        dist.broadcast(held, source)
        return bytes(held.cpu().numpy())

    def _empty(self, length: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(length, dtype=dtype, device=self._device)


def _describe(share: Share) -> bytes:
    """All of a share but the gradients' values. JSON writes a float so that it reads back as the same one."""
    shapes = [None if grad is None else list(grad.shape) for grad in share.gradients]
    return json.dumps([list(share.numbers), dict(share.figures), shapes]).encode()


@contextmanager
def join_world(threads: int, *, lockstep: bool = False) -> Iterator[World]:
    """The world this process was started into (torchrun's environment, or a group that stands already).

    On a machine with CUDA each process takes the GPU of its local rank and speaks NCCL, elsewhere Gloo. A world of one
    process is `Alone`.
    """
    started = not dist.is_initialized()
    if started:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    try:
        with one_thread_each(threads) as alone:
            yield Processes(alone, lockstep=lockstep) if dist.get_world_size() > 1 else alone
    finally:
        if started:
            dist.destroy_process_group()
