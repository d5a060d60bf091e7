"""Which layer of a base a name in a stranger's file means, and whether what the file holds fits there."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from espalier.core.errors import InvalidInput, UnsupportedModel, did_you_mean
from espalier.nn.adapterfiles import StoredLayer


def find_place(name: str, model: nn.Module) -> str:
    """The layer of the base that a layer of the file means; raises InvalidInput, UnsupportedModel."""
    modules = dict(model.named_modules())
    found = list_candidates(name, modules)
    if not found:
        trained_on = "it was trained on a base with other or more layers"
        leaves = {n.rpartition(".")[2] for n, m in modules.items() if isinstance(m, nn.Linear)}
        leaf = name.rpartition(".")[2]
        hint = trained_on if leaf in leaves else did_you_mean(leaf, leaves)
        raise InvalidInput(f"it has weights for {name}, which the base lacks", hint=hint)
    layer = modules[found[0]]
    if layer is model.get_output_embeddings():  # type: ignore[operator]
        raise UnsupportedModel(f"{name} is the base's head, which adapters are not served on", hint="merge it there")
    if type(layer) is not nn.Linear:
        raise UnsupportedModel(
            f"{name} is a {type(layer).__name__} in the base, and adapters stand on linear layers only",
            hint="merge it into its base where it was trained, and serve that with path:DIR",
        )
    return found[0]


def list_candidates(name: str, modules: Mapping[str, nn.Module]) -> list[str]:
    """Names of the base's layers that `name` may stand for: itself, with fewer or with more names before it."""
    parts = name.split(".")
    shorter = [".".join(parts[start:]) for start in range(min(4, len(parts)))]
    found = [candidate for candidate in shorter if candidate in modules]
    if found:
        return found[:1]
    longer = [module for module in modules if module.endswith(f".{name}")]
    return longer if len(longer) == 1 else []


def check_shape(place: str, layer: StoredLayer, model: nn.Module, where: str) -> None:
    """Raises InvalidInput unless the adapter's layer has as many inputs and outputs as the base's."""
    linear = model.get_submodule(place)
    wanted = (int(linear.out_features), int(linear.in_features))  # type: ignore[arg-type]
    found = (layer.b.shape[0], layer.a.shape[1])
    lengths = wanted[0] if layer.magnitude is None else layer.magnitude.shape[0]
    if found != wanted or lengths != wanted[0]:
        raise InvalidInput(
            f"{place} is {wanted[0]} x {wanted[1]} in the base, the adapter is for {found[0]} x {found[1]}",
            where=where,
            hint="it was trained on another base",
        )
