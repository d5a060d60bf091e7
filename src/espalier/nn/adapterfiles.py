"""An adapter as a folder: written as PEFT writes it, read back with every doubt named.

A folder holds what any PEFT reads (adapter_config.json, adapter_model.safetensors) and `espalier.json`, which says what
the adapter was trained on; nothing is read for anything else. Knows no training loop and no engine.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from espalier.core.errors import DigestMismatch, InvalidInput, NotFound, UnsupportedModel
from espalier.core.ids import canonical_json
from espalier.nn.base import LoadedBase
from espalier.nn.lora import LoraSpec, from_peft, layer_index, to_peft

PREFIX = "base_model.model."  # PEFT's name of the wrapped model
ORIGIN = "espalier.json"
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_HEAD = f"{PREFIX}score.weight"
_PARTS = {"lora_A.weight": "a", "lora_B.weight": "b", "lora_magnitude_vector": "magnitude"}


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """What stands beside one linear layer: A (r, in), B (out, r), DoRA's magnitude (out), float32; B unscaled."""

    a: Tensor
    b: Tensor
    scale: float
    magnitude: Tensor | None = None

    @property
    def delta(self) -> Tensor:
        """s B A, (out, in) float32."""
        return (self.b.float() @ self.a.float()).mul_(self.scale)


@dataclass(frozen=True, slots=True)
class StoredAdapter:
    """An adapter as its files say it: settings, layers by full name in name order, and what it was made from."""

    spec: LoraSpec
    layers: dict[str, StoredLayer]
    origin: dict[str, Any]

    @property
    def parameters(self) -> int:
        parts = [t for layer in self.layers.values() for t in (layer.a, layer.b, layer.magnitude) if t is not None]
        return sum(tensor.numel() for tensor in parts)


def read_stored(
    folder: Path, base: LoadedBase, *, require_origin: bool = True, beside_head: bool = False
) -> StoredAdapter:
    """Read a PEFT folder for use on `base`, and refuse it unless it was trained on exactly that.

    `require_origin=False` takes a foreign adapter without espalier.json on its shapes alone. `beside_head` also takes
    one with a trained score head (nn/scorehead.py), which is left out; it may have no layer but the head.
    Raises NotFound, DigestMismatch (other base, tokenizer or template), UnsupportedModel (neither LoRA nor DoRA),
    InvalidInput (shapes, targets, numbers that are not finite).
    """
    config = read_json(folder / CONFIG)
    has_head = config.get("task_type") == "SEQ_CLS" and config.get("modules_to_save") == ["score"]
    if has_head and not beside_head:
        raise UnsupportedModel(
            "the adapter belongs to a head that gives scores, not text",
            where=str(folder),
            hint="ask it for labels or scores; only adapters of language models answer in words or are merged",
        )
    spec = from_peft(config | {"modules_to_save": None} if has_head else config, str(folder / CONFIG))
    origin = {}
    if require_origin or (folder / ORIGIN).exists():
        origin = read_json(folder / ORIGIN)
        check_origin(origin, base, folder)
    weights = folder / WEIGHTS
    state = read_tensors(weights)
    if has_head and state.pop(_HEAD, None) is not None and not state:
        return StoredAdapter(spec, {}, origin)
    return StoredAdapter(spec, build_layers(state, spec, base.model, str(weights)), origin)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file. Raises NotFound, InvalidInput."""
    try:
        # Not load_file: safetensors leaks two objects a tensor there, and a server reads adapters again and again.
        return dict(load(path.read_bytes()))
    except FileNotFoundError:
        raise NotFound(f"no file {path}", hint="an adapter folder is what PEFT's save_pretrained writes") from None
    except SafetensorError as error:
        raise InvalidInput(f"not a safetensors file: {error}", where=str(path)) from None


def build_layers(state: Mapping[str, Tensor], spec: LoraSpec, model: nn.Module, where: str) -> dict[str, StoredLayer]:
    """Layers out of tensors under PEFT's names, each checked against the layer of `model` it stands on.

    Raises UnsupportedModel for a tensor that is no part of a LoRA or DoRA, InvalidInput.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        name, _, part = key.removeprefix(PREFIX).rpartition(".lora_")
        kind = _PARTS.get(f"lora_{part}")
        if not name or kind is None or (kind == "magnitude") != ("magnitude" in part):
            raise UnsupportedModel(
                f"{key} is no LoRA weight", where=where, hint="only LoRA and DoRA on linear layers are understood"
            )
        found.setdefault(name, {})[kind] = tensor
    if not found:
        raise InvalidInput("the adapter holds no weights", where=where)
    modules = dict(model.named_modules())
    return {name: _build_layer(name, found[name], spec, modules.get(name), where) for name in sorted(found)}


def write_stored(
    folder: Path, adapter: StoredAdapter, modules: Iterable[str], base: str, origin: Mapping[str, Any] | None = None
) -> str:
    """Write the adapter into `folder` as PEFT would, and `espalier.json` beside it; same weights, same bytes.

    modules: full names of all modules of the base's model, so that targets are named as shortly as they can be.
    Returns the sha256 of the weights' file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {}
    for name, layer in adapter.layers.items():
        for part, kind in _PARTS.items():
            tensor = getattr(layer, kind)
            if tensor is not None:
                state[f"{PREFIX}{name}.{part}"] = tensor.detach().to("cpu").float().contiguous()
    targets, layers = describe_targets(adapter.layers, modules)
    content = save(state, metadata={"format": "pt"})
    write_file(folder / WEIGHTS, content)
    write_file(folder / CONFIG, pretty(to_peft(adapter.spec, targets, base, layers)))
    write_file(folder / ORIGIN, pretty(dict(adapter.origin if origin is None else origin)))
    return sha256(content).hexdigest()


def describe_targets(adapted: Iterable[str], modules: Iterable[str]) -> tuple[list[str], list[int] | None]:
    """(target_modules, layers_to_transform) that make PEFT find exactly `adapted` among `modules`.

    Last parts of names where those suffice, with the layers' numbers where they must, full names else.
    """
    wanted = set(adapted)
    leaves = {name.rpartition(".")[2] for name in wanted}
    alike = {name for name in modules if name.rpartition(".")[2] in leaves}
    numbers = {layer_index(name) for name in wanted}
    if alike == wanted:
        return sorted(leaves), None
    if None not in numbers and {name for name in alike if layer_index(name) in numbers} == wanted:
        return sorted(leaves), sorted(number for number in numbers if number is not None)
    return sorted(wanted), None


def origin_of(base: LoadedBase, *, dataset: str = "", recipe: str = "") -> dict[str, Any]:
    """What espalier.json says of an adapter trained on `base`; `dataset` and `recipe` are digests."""
    return {
        "base": base.spec,
        "base_digest": base.base_digest,
        "tokenizer_digest": base.tokenizer_digest,
        "template_digest": base.template_digest,
        "special_tokens": base.special_tokens,
        "quantised": base.quantised,
        "dataset": dataset,
        "recipe": recipe,
    }


def check_origin(origin: Mapping[str, Any], base: LoadedBase, folder: Path) -> None:
    """Raises DigestMismatch unless the adapter in `folder` was trained on exactly `base`."""
    checks = (
        ("base", "base_digest", base.base_digest, "serve it on the base it names, or train it again on this one"),
        ("tokenizer", "tokenizer_digest", base.tokenizer_digest, "restore that tokenizer, or train again"),
        ("chat template", "template_digest", base.template_digest, "restore that template, or train again"),
    )
    for noun, key, own, hint in checks:
        theirs = str(origin.get(key, ""))
        if theirs != own:
            raise DigestMismatch(
                f"the adapter in {folder} was trained on {origin.get('base')} with {noun} {theirs[:12] or 'unknown'}; "
                f"{base.spec} has {noun} {own[:12]}",
                hint=hint,
            )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises NotFound, InvalidInput."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise NotFound(
            f"no file {path}",
            hint="an adapter folder holds adapter_config.json, adapter_model.safetensors and espalier.json",
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InvalidInput(f"not JSON: {error}", where=str(path)) from None
    if not isinstance(found, dict):
        raise InvalidInput("not a JSON object", where=str(path))
    return found


def pretty(value: Mapping[str, Any]) -> bytes:
    """A JSON object for people to read: the same object, the same bytes."""
    return json.dumps(json.loads(canonical_json(dict(value))), indent=2, ensure_ascii=False).encode() + b"\n"


def write_file(path: Path, content: bytes) -> None:
    """The whole file or none of it."""
    staged = path.with_name(f".{path.name}.part")
    with staged.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)


def _build_layer(
    name: str, parts: Mapping[str, Tensor], spec: LoraSpec, layer: nn.Module | None, where: str
) -> StoredLayer:
    if layer is None or not hasattr(layer, "in_features"):
        raise InvalidInput(f"the adapter has weights for {name}, which the base lacks", where=where)
    rank, inputs, outputs = spec.rank_of(name), int(layer.in_features), int(layer.out_features)  # type: ignore[arg-type]
    wanted = ((rank, inputs), (outputs, rank))
    found = tuple(tuple(parts[part].shape) if part in parts else None for part in "ab")
    if found != wanted:
        raise InvalidInput(f"{name}: A and B are {found}, {wanted} is wanted", where=where)
    magnitude = parts.get("magnitude")
    if spec.dora != (magnitude is not None):
        lacks = "lacks the magnitudes that use_dora promises" if spec.dora else "has magnitudes, but use_dora is off"
        raise InvalidInput(f"{name} {lacks}", where=where, hint="weights and adapter_config.json belong together")
    if magnitude is not None and tuple(magnitude.shape) != (outputs,):
        raise InvalidInput(f"{name}: the magnitudes are {tuple(magnitude.shape)}, ({outputs},) is wanted", where=where)
    if not all(tensor.is_floating_point() and bool(tensor.isfinite().all()) for tensor in parts.values()):
        raise InvalidInput(f"{name}: the weights hold infinities or NaN", where=where, hint="its training diverged")
    return StoredLayer(
        parts["a"].float(),
        parts["b"].float(),
        spec.scale_of(name),
        None if magnitude is None else magnitude.float(),
    )
