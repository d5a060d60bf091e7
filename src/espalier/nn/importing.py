"""A stranger's adapter made ours, or refused with the reason: checked against the base it is to stand on.

Every part must be accounted for. What an adapter of ours would leave out (a bias, a changed vocabulary, a layer that is
trained whole) is a reason to refuse, never left out silently. Knows no store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from espalier.core.errors import InvalidInput, UnsupportedModel
from espalier.nn.adapterfiles import (
    CONFIG,
    ORIGIN,
    StoredAdapter,
    StoredLayer,
    check_origin,
    origin_of,
    read_json,
    write_stored,
)
from espalier.nn.base import LoadedBase
from espalier.nn.foreign import ForeignAdapter, read_foreign
from espalier.nn.importspec import ImportSpec
from espalier.nn.lora import ALL_LINEAR, LoraSpec, from_peft
from espalier.nn.placing import check_shape, find_place, list_candidates

_FUSED = frozenset({"qkv_proj", "query_key_value", "c_attn", "qkv", "Wqkv", "W_pack"})  # q, k, v in one layer
_VOCABULARY = ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out", "word_embeddings")


@dataclass(frozen=True, slots=True)
class Imported:
    """What was imported, and what could not be checked."""

    adapter: StoredAdapter
    format: str
    notes: tuple[str, ...]


def import_adapter(source: Path, base: LoadedBase, folder: Path, spec: ImportSpec | None = None) -> Imported:
    """Write the adapter in `source` (see nn/foreign.py) to `folder` as an adapter of `base`, whose outline is enough.

    The numbers are the same, in float32. Raises what `read_foreign` raises; DigestMismatch when it says it belongs to
    another base; UnsupportedModel for what would be left out; InvalidInput for layers the base lacks, shapes, ranks
    that differ from the configuration's, parts that are missing, and numbers that are not finite.
    """
    foreign = read_foreign(source)
    where = str(foreign.weights)
    beside = foreign.weights.parent if source.is_dir() else None
    told = read_json(beside / ORIGIN) if beside is not None and (beside / ORIGIN).exists() else {}
    if told:
        check_origin(told, base, source)
    _refuse_others(foreign, base, where)
    settings = _settings(foreign, spec or ImportSpec(), where)
    layers: dict[str, StoredLayer] = {}
    for name in sorted(foreign.layers):
        for place, layer in _import_layer(name, foreign, settings, base, where).items():
            if place in layers:
                raise InvalidInput(f"two layers of the file mean {place} of the base", where=where)
            layers[place] = layer
    _check_promised(settings, foreign, where)
    notes = _notes(foreign, beside, base)
    imported = {
        "from": source.name,
        "format": foreign.format,
        "stated_base": str(foreign.config.get("base_model_name_or_path") or foreign.config.get("model") or ""),
        "weights_sha256": sha256(foreign.weights.read_bytes()).hexdigest(),
    }
    adapter = StoredAdapter(_spec_of(layers, settings), layers, origin_of(base) | told | {"imported": imported})
    write_stored(folder, adapter, [module for module, _ in base.model.named_modules()], base.spec)
    return Imported(adapter, foreign.format, notes)


@dataclass(frozen=True, slots=True)
class _Settings:
    """What the configuration or the user says: PEFT's whole, or a scale for every layer."""

    peft: LoraSpec | None
    scale: float | None  # MLX
    alpha: float | None  # loralib
    enabled: tuple[bool, ...]
    dropout: float
    dora: bool


def _settings(foreign: ForeignAdapter, spec: ImportSpec, where: str) -> _Settings:
    place = str(foreign.weights.parent / CONFIG)
    if foreign.format == "peft":
        peft = from_peft(foreign.config, place)
        return _Settings(peft, None, None, spec.enabled, peft.dropout, peft.dora)
    dora = any("magnitude" in parts for parts in foreign.layers.values())
    if foreign.format == "mlx":
        given = foreign.config["lora_parameters"]
        try:
            return _Settings(None, float(given["scale"]), None, (), float(given.get("dropout") or 0.0), dora)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise InvalidInput("lora_parameters does not say the scale", where=place) from None
    if spec.alpha is None:
        raise InvalidInput(
            "a state dict of loralib does not say its alpha", where=where, hint="give the lora_alpha of its training"
        )
    return _Settings(None, None, spec.alpha, spec.enabled, 0.0, dora)


def _refuse_others(foreign: ForeignAdapter, base: LoadedBase, where: str) -> None:
    for name, tensor in foreign.others.items():
        way_out = "merge it into its base where it was trained, and serve that with path:DIR"
        if name.endswith("bias"):
            raise UnsupportedModel(f"it trained the bias {name}, which would be left out", where=where, hint=way_out)
        if any(part in name.split(".") for part in _VOCABULARY):
            rows, own = tensor.shape[0], base.model.get_input_embeddings().weight.shape[0]
            said = f"with {rows} rows where the base has {own}" if rows != own else "which would be left out"
            raise UnsupportedModel(f"it changed the vocabulary: {name}, {said}", where=where, hint=way_out)
        if "modules_to_save" in name:
            raise UnsupportedModel(f"it trained {name} whole, which would be left out", where=where, hint=way_out)
        raise UnsupportedModel(
            f"{name} is no part of a LoRA",
            where=where,
            hint="save the adapter alone: PEFT's save_pretrained, loralib's lora_state_dict",
        )


def _import_layer(
    name: str, foreign: ForeignAdapter, settings: _Settings, base: LoadedBase, where: str
) -> dict[str, StoredLayer]:
    parts = foreign.layers[name]
    for kind, noun in (("a", "lora_A"), ("b", "lora_B")):
        if kind not in parts:
            raise InvalidInput(f"{name} has no {noun}", where=where, hint="the file was not written whole")
    if settings.dora and "magnitude" not in parts:
        raise InvalidInput(f"{name} has no magnitude, which DoRA needs", where=where)
    if not settings.dora and "magnitude" in parts:
        raise InvalidInput(f"{name} has a magnitude, but its configuration knows no DoRA", where=where)
    for kind, tensor in parts.items():
        if not tensor.is_floating_point() or tensor.dim() != (1 if kind == "magnitude" else 2):
            raise InvalidInput(f"{name}: {kind} is {tensor.dtype} {tuple(tensor.shape)}, no matrix", where=where)
        if not bool(tensor.isfinite().all()):
            raise InvalidInput(f"{name}: the weights hold infinities or NaN", where=where, hint="its training diverged")
    a, b = parts["a"].float(), parts["b"].float()
    if settings.alpha is not None and (a.shape[0] != b.shape[1] or name.rpartition(".")[2] in _FUSED):
        return _import_fused(name, a, b, settings, base.model, where)
    place = find_place(name, base.model)
    rank = _check_rank(name, a, b, settings, where)
    magnitude = parts["magnitude"].float() if settings.dora else None
    layer = StoredLayer(a, b, _scale(settings, name, rank), magnitude)
    check_shape(place, layer, base.model, where)
    return {place: layer}


def _import_fused(
    name: str, a: Tensor, b: Tensor, settings: _Settings, model: nn.Module, where: str
) -> dict[str, StoredLayer]:
    """loralib's MergedLinear: q, k and v in one layer, A of the enabled ones under one another, B likewise (groups).

    On a base that has them apart, each gets its own; on one that has them in one layer, B is a diagonal of blocks.
    """
    rank, groups = b.shape[1], a.shape[0] // b.shape[1]
    enabled = settings.enabled or (True,) * groups
    if groups * rank != a.shape[0] or sum(enabled) != groups or b.shape[0] % groups:
        raise InvalidInput(
            f"{name}: A {tuple(a.shape)} and B {tuple(b.shape)} are of {groups} fused parts, "
            f"enabled are {sum(enabled)} of {len(enabled)}",
            where=where,
            hint="give its enable_lora, e.g. true false true for q and v of q, k, v",
        )
    pairs = list(zip(torch.split(a, rank), torch.split(b, b.shape[0] // groups), strict=True))
    scale = _scale(settings, name, rank)
    parent = name.rpartition(".")[0]
    apart = [f"{parent}.{leaf}" if parent else leaf for leaf in ("q_proj", "k_proj", "v_proj")]
    modules = dict(model.named_modules())
    if not list_candidates(name, modules) and len(enabled) == 3 and all(list_candidates(p, modules) for p in apart):
        chosen = [place for place, on in zip(apart, enabled, strict=True) if on]
        layers = {find_place(p, model): StoredLayer(*pair, scale) for p, pair in zip(chosen, pairs, strict=True)}
    else:
        rows = b.shape[0] // groups
        whole = torch.zeros(rows * len(enabled), a.shape[0])
        for number, index in enumerate(index for index, on in enumerate(enabled) if on):
            whole[index * rows : (index + 1) * rows, number * rank : (number + 1) * rank] = pairs[number][1]
        layers = {find_place(name, model): StoredLayer(a, whole, scale)}
    for place, layer in layers.items():
        check_shape(place, layer, model, where)
    return layers


def _check_rank(name: str, a: Tensor, b: Tensor, settings: _Settings, where: str) -> int:
    rank = a.shape[0]
    if b.shape[1] != rank:
        raise InvalidInput(f"{name}: A has rank {rank}, B has {b.shape[1]}", where=where)
    if settings.peft is not None and settings.peft.rank_of(name) != rank:
        said = settings.peft.rank_of(name)
        raise InvalidInput(f"{name} has rank {rank}, {CONFIG} says {said}", where=where)
    return rank


def _scale(settings: _Settings, name: str, rank: int) -> float:
    if settings.peft is not None:
        return settings.peft.scale_of(name)
    return settings.scale if settings.scale is not None else (settings.alpha or 0.0) / rank


def _check_promised(settings: _Settings, foreign: ForeignAdapter, where: str) -> None:
    """Raises InvalidInput when the configuration names a target that has no weights at all."""
    targets = settings.peft.targets if settings.peft is not None else ()
    names = list(foreign.layers)
    for target in targets:
        plain = target != ALL_LINEAR and all(part.isidentifier() or part.isdigit() for part in target.split("."))
        if plain and not any(name == target or name.endswith(f".{target}") for name in names):
            raise InvalidInput(
                f"{CONFIG} targets {target}, which has no weights", where=where, hint="the file was not written whole"
            )


def _spec_of(layers: Mapping[str, StoredLayer], settings: _Settings) -> LoraSpec:
    """The configuration as it was, where it says the same of the base's own names; else one that does."""
    if settings.peft is not None and all(
        settings.peft.rank_of(name) == layer.a.shape[0] and settings.peft.scale_of(name) == layer.scale
        for name, layer in layers.items()
    ):
        return settings.peft
    alphas = {name: layer.scale * layer.a.shape[0] for name, layer in layers.items()}
    rank, alpha = Counter((layer.a.shape[0], alphas[name]) for name, layer in layers.items()).most_common(1)[0][0]
    return LoraSpec(
        rank=rank,
        alpha=alpha,
        dropout=settings.dropout,
        targets=tuple(sorted({name.rpartition(".")[2] for name in layers})),
        ranks={name: layer.a.shape[0] for name, layer in layers.items() if layer.a.shape[0] != rank},
        alphas={name: value for name, value in alphas.items() if value != alpha},
        dora=settings.dora,
    )


def _notes(foreign: ForeignAdapter, beside: Path | None, base: LoadedBase) -> tuple[str, ...]:
    """What could not be checked. Raises UnsupportedModel when the tokenizer beside it has tokens the base lacks."""
    notes = []
    stated = foreign.config.get("base_model_name_or_path") or foreign.config.get("model")
    if stated and f"hf:{stated}" != base.spec:
        notes.append(f"it says it was trained on {stated}; that this is {base.spec} is your word")
    elif not stated:
        notes.append(f"it does not say which base it was trained on; that it is {base.spec} is your word")
    if beside is not None and (beside / "tokenizer.json").exists():
        rows = base.model.get_input_embeddings().weight.shape[0]
        size = _count_tokens(beside / "tokenizer.json")
        if size > rows:
            raise UnsupportedModel(
                f"its tokenizer has {size} tokens, the base's embedding {rows} rows: it added some",
                where=str(beside / "tokenizer.json"),
                hint="merge it into its base where it was trained, and serve that with path:DIR",
            )
        if size != base.tokenizer.size:
            notes.append(f"its tokenizer has {size} tokens, the base's {base.tokenizer.size}")
    template = beside / "chat_template.jinja" if beside is not None else None
    if template is not None and template.exists() and template.read_text("utf-8") != base.tokenizer.template:
        notes.append("its chat template is not the base's, with which it will be asked")
    return tuple(notes)


def _count_tokens(path: Path) -> int:
    try:
        return int(Tokenizer.from_file(str(path)).get_vocab_size())
    except Exception as error:  # noqa: BLE001 - the tokenizers library raises nothing more precise
        raise InvalidInput(f"its tokenizer cannot be read: {error}", where=str(path)) from None
