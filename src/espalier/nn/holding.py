"""How much memory tensors hold: each storage once, however many views and names it has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor, nn


def held_bytes(*things: Any) -> int:
    """Bytes of every tensor in modules, in tensors, and in mappings, sequences, dataclasses and objects of those."""
    storages = {}
    for thing in things:
        for tensor in _tensors_in(thing, depth=4):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _tensors_in(thing: Any, depth: int) -> Iterator[Tensor]:
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, nn.Module):
        yield from thing.parameters()
        yield from thing.buffers()
    elif depth > 0:
        for part in _parts_of(thing):
            yield from _tensors_in(part, depth - 1)


def _parts_of(thing: Any) -> list[Any]:
    if isinstance(thing, Mapping):
        return list(thing.values())
    if isinstance(thing, list | tuple):
        return list(thing)
    if is_dataclass(thing):
        return [getattr(thing, field.name) for field in fields(thing)]
    return []
