"""Spread a frozen base over several processes: each holds its part of every decoder layer (FSDP2).

A layer's weights are gathered when it computes and given back after, forward and backward, so a device holds one
layer's weights at a time beside its own share of all. What is trained on the base (adapters), the embedding and the
head stay whole on every process. All processes must compute at the same time. Knows no objective and no loop.

See https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from espalier.core.errors import UnsupportedModel
from espalier.nn.transformer import find_decoder


def shard_layers(model: PreTrainedModel) -> None:
    """Spread the frozen weights of the model's decoder layers over the processes of this one's group, in place.

    The model comes in the machine's memory; what stays whole goes to this process's device. Raises UnsupportedModel
    where the architecture has no layers that can be told apart.
    """
    decoder = find_decoder(model)
    layers = [module for module in decoder.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise UnsupportedModel(
            f"the layers of {model.config.model_type} cannot be told apart, so they cannot be spread over processes",
            hint="take `shard` out of `where`",
        )
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    mesh = init_device_mesh(kind, (dist.get_world_size(),))
    for layer in layers:
        fully_shard(layer, mesh=mesh, ignored_params=_learning(layer))
    below = {id(parameter) for layer in layers for parameter in layer.parameters()}
    rest = {parameter for parameter in decoder.parameters() if id(parameter) not in below}
    fully_shard(decoder, mesh=mesh, ignored_params=rest | _learning(decoder))
    _settle(model, torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else torch.device(kind))


def _learning(module: nn.Module) -> set[nn.Parameter]:
    return {parameter for parameter in module.parameters() if parameter.requires_grad}


def _settle(model: PreTrainedModel, device: torch.device) -> None:
    """Put what is not spread on the device."""
    for parameter in model.parameters():
        if not isinstance(parameter, DTensor):
            parameter.data = parameter.data.to(device)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
