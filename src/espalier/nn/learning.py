"""Which parameters of a model learn in a full fine-tuning. Knows no optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn
from transformers import PreTrainedModel

from espalier.core.errors import InvalidInput, did_you_mean
from espalier.nn.freezing import FreezeSpec
from espalier.nn.lora import layer_index


@dataclass(frozen=True, slots=True)
class Learning:
    """The parameters that learn, by name in the model's order; numbers learning and in all, tied ones counted once."""

    parameters: dict[str, nn.Parameter]
    trained: int
    total: int


def choose_learning(model: PreTrainedModel, freeze: FreezeSpec, *, nothing: bool = False) -> Learning:
    """Set `requires_grad` of every parameter of `model` as `freeze` says; with `nothing`, all of it is frozen.

    Raises InvalidInput for more layers than there are, a pattern that no parameter's name matches, and where nothing
    would be left to learn.
    """
    own = dict(model.named_parameters())
    frozen = set(own) if nothing else _frozen_names(model, freeze, list(own))
    for name, parameter in own.items():
        parameter.requires_grad_(name not in frozen)
    learning = {name: parameter for name, parameter in own.items() if name not in frozen}
    if not learning and not nothing:
        raise InvalidInput("every parameter is frozen, so nothing would learn", hint="freeze fewer layers or names")
    return Learning(
        learning,
        sum(parameter.numel() for parameter in learning.values()),
        sum(parameter.numel() for parameter in own.values()),
    )


def _frozen_names(model: PreTrainedModel, freeze: FreezeSpec, names: list[str]) -> set[str]:
    frozen: set[str] = set()
    for pattern in freeze.names:
        matched = {name for name in names if fnmatchcase(name, pattern)}
        if not matched:
            raise InvalidInput(f"no parameter's name matches {pattern!r}", hint=_suggest(pattern, names))
        frozen |= matched
    if freeze.layers_below:
        count = 1 + max((index for index in map(layer_index, names) if index is not None), default=-1)
        if freeze.layers_below > count:
            raise InvalidInput(f"{freeze.layers_below} layers are to be frozen, the model has {count}")
        below = model.get_input_embeddings().weight
        frozen |= {name for name, parameter in model.named_parameters() if parameter is below}
        frozen |= {name for name in names if (index := layer_index(name)) is not None and index < freeze.layers_below}
    return frozen


def _suggest(pattern: str, names: list[str]) -> str:
    parts = {part for name in names for part in name.split(".") if not part.isdigit()}
    return f"{did_you_mean(pattern.strip('*.'), parts)} A pattern is matched against the whole name, as *.mlp.*"
