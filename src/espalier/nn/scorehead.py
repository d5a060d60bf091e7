"""A head that gives a text scores (one for each label, or one reward), and how it lies on disk.

It is transformers' own: `score`, a linear layer without bias over the final hidden state of the last token. Beside an
adapter it is one of PEFT's `modules_to_save`; in a model's folder it makes the model a *ForSequenceClassification.
Knows no training loop and no text.

Legend: n labels, m model width, r rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from espalier.core.errors import InvalidInput, NotFound, UnsupportedModel
from espalier.core.ids import canonical_json

HeadKind = Literal["classify", "reward"]

_IN_ADAPTER, _IN_MODEL = "base_model.model.score.weight", "score.weight"
_ADAPTER, _ADAPTER_CONFIG, _ORIGIN = "adapter_model.safetensors", "adapter_config.json", "espalier.json"
_MODEL, _INDEX, _CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
_NO_TARGET = "dummy-target-modules"  # PEFT's word for an adapter that stands on no layer


@dataclass(frozen=True, slots=True)
class ScoreHead:
    """logits = hidden weight^T. `labels` name the rows; a reward has one row and no label."""

    kind: HeadKind
    labels: tuple[str, ...]
    weight: Tensor  # (n, m), learns

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        return {_IN_MODEL: self.weight}

    def logits(self, hidden: Tensor) -> Tensor:
        """(r, m) -> (r, n), in the head's own type."""
        return hidden.to(self.weight.dtype) @ self.weight.t()


def draw_head(kind: HeadKind, labels: Sequence[str], config: Any, seed: int, device: torch.device) -> ScoreHead:
    """A new head over a model of this config: normal, with the deviation transformers starts linear layers from."""
    noise = hashlib.sha256(f"{seed}:score".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(noise[:8], "big") >> 1)
    text = config.get_text_config()
    deviation = float(getattr(text, "initializer_range", None) or 0.02)
    weight = torch.empty(max(1, len(labels)), text.hidden_size).normal_(std=deviation, generator=generator)
    return ScoreHead(kind, tuple(labels), weight.to(device).requires_grad_())


def find_classifier(config: Any) -> str:
    """The name of transformers' sequence classifier for this config. Raises UnsupportedModel when it has none."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as NAMES

    found = NAMES.get(config.model_type)
    if not found:
        raise UnsupportedModel(
            f"transformers has no sequence classifier of the kind {config.model_type}",
            hint="use `tune: lora` or `tune: head`, whose head stands beside the base",
        )
    return str(found)


def add_to_adapter(folder: Path, head: ScoreHead, origin: Mapping[str, Any]) -> None:
    """Put the head into an adapter's folder, or make one of nothing else where there is none yet.

    `origin` is what a new folder's espalier.json says the head was trained on.
    """
    path = folder / _ADAPTER
    folder.mkdir(parents=True, exist_ok=True)
    state = load_file(path) if path.is_file() else {}
    config = _read(folder / _ADAPTER_CONFIG) if state else _adapter_of_nothing()
    config |= {"modules_to_save": ["score"], "task_type": "SEQ_CLS"}
    told = _read(folder / _ORIGIN) if state else dict(origin)
    state[_IN_ADAPTER] = _stored(head)
    path.write_bytes(save(state, metadata={"format": "pt"}))
    _write(folder / _ADAPTER_CONFIG, config)
    _write(folder / _ORIGIN, told | {"head": _describe(head)})


def add_to_model(folder: Path, head: ScoreHead, classifier: str) -> None:
    """Make a saved causal language model a sequence classifier: the head as one more shard, no other weight rewritten.

    The language model's own head stays, so that the folder can also be read as what it was.
    """
    index = folder / _INDEX
    if index.is_file():
        names: dict[str, str] = _read(index)["weight_map"]
    else:
        first = "model-00001-of-00002.safetensors"
        (folder / _MODEL).rename(folder / first)
        with safe_open(folder / first, "pt") as file:
            names = dict.fromkeys(file.keys(), first)
    shard = "model-score.safetensors"
    (folder / shard).write_bytes(save({_IN_MODEL: _stored(head)}, metadata={"format": "pt"}))
    names = names | {_IN_MODEL: shard}
    size = sum((folder / file).stat().st_size for file in set(names.values()))
    _write(index, {"metadata": {"total_size": size}, "weight_map": names})
    config = _read(folder / _CONFIG) | _config_of(head) | {"architectures": [classifier]}
    _write(folder / _CONFIG, config)
    told = _read(folder / _ORIGIN) if (folder / _ORIGIN).is_file() else {}
    _write(folder / _ORIGIN, told | {"head": _describe(head)})


def read_head(folder: Path, width: int) -> ScoreHead:
    """The head in an adapter's or a model's folder. Raises NotFound for none, InvalidInput for a wrong one."""
    origin = _read(folder / _ORIGIN) if (folder / _ORIGIN).is_file() else {}
    found = origin.get("head")
    if not isinstance(found, dict) or found.get("kind") not in ("classify", "reward"):
        raise NotFound(
            f"{folder} holds no head that gives scores", hint="train one with `method: classify` or `method: reward`"
        )
    labels = tuple(map(str, found.get("labels", ())))
    path, name = (folder / _ADAPTER, _IN_ADAPTER) if (folder / _ADAPTER).is_file() else (_shard(folder), _IN_MODEL)
    try:
        with safe_open(path, "pt") as file:
            weight = file.get_tensor(name).float()
    except (OSError, SafetensorError) as error:
        raise InvalidInput(f"the head cannot be read: {error}", where=str(path)) from None
    if tuple(weight.shape) != (max(1, len(labels)), width) or not weight.isfinite().all():
        raise InvalidInput(
            f"the head is {tuple(weight.shape)}, ({max(1, len(labels))}, {width}) of finite numbers is wanted",
            where=str(path),
        )
    return ScoreHead(found["kind"], labels, weight)


def holds_head(folder: Path) -> bool:
    """Whether what stands in the folder gives scores, not text."""
    path = folder / _ORIGIN
    return path.is_file() and "head" in _read(path)


def _shard(folder: Path) -> Path:
    names = _read(folder / _INDEX)["weight_map"] if (folder / _INDEX).is_file() else {}
    return folder / str(names.get(_IN_MODEL, _MODEL))


def _describe(head: ScoreHead) -> dict[str, Any]:
    return {"kind": head.kind, "labels": list(head.labels), **_config_of(head)}


def _config_of(head: ScoreHead) -> dict[str, Any]:
    """What transformers' config says of it. One label makes transformers speak of regression, which a reward is."""
    names = head.labels or ("reward",)
    return {
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
        "num_labels": len(names),
    }


def _adapter_of_nothing() -> dict[str, Any]:
    return {
        "base_model_name_or_path": None,
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": 1,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": 1,
        "target_modules": _NO_TARGET,
    }


def _stored(head: ScoreHead) -> Tensor:
    weight = head.weight.detach().to("cpu", torch.float32).contiguous()
    if not weight.isfinite().all():
        raise InvalidInput("the head holds numbers that are not finite", hint="lower the learning rate")
    return weight


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(json.loads(canonical_json(value)), indent=2, ensure_ascii=False) + "\n", "utf-8")
