"""What an adapter's folder says of itself, from its small files and the weights' header alone. Imports no torch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pydantic import Field

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.types import Spec
from espalier.nn.lora import from_peft

_CONFIG, _WEIGHTS, _ORIGIN = "adapter_config.json", "adapter_model.safetensors", "espalier.json"
_PREFIX = "base_model.model."


class AdapterSheet(Spec):
    """An adapter at a glance."""

    kind: str = Field(description="LoRA, rsLoRA or DoRA")
    rank: int = Field(description="the largest of its layers'")
    alpha: float
    dropout: float
    ranks: dict[str, int] = Field({}, description="where another rank was asked for")
    targets: tuple[str, ...] = Field(description="last parts of the names of the layers it stands on")
    layers: int = Field(description="linear layers it stands on")
    parameters: int
    size_bytes: int
    base: str = Field("", description="the base it belongs to, as it was named in training")
    base_digest: str = ""
    origin: str = Field("", description="trained here, imported, or combined of others")
    made_from: dict[str, Any] = Field({}, description="espalier.json as it stands there")

    def to_text(self) -> str:
        """For a terminal."""
        base = f"{self.base}  {self.base_digest[:12]}" if self.base_digest else "(not said)"
        ranks = "".join(f", {rank} on {name}" for name, rank in self.ranks.items())
        lines = [
            f"{self.kind}, rank {self.rank}{ranks}, alpha {self.alpha:g}, dropout {self.dropout:g}",
            f"stands on  {self.layers} layers: {', '.join(self.targets)}",
            f"size       {self.parameters:,} parameters, {self.size_bytes / 1e6:.2f} MB",
            f"base       {base}",
            f"origin     {self.origin}",
        ]
        return "\n".join(lines)


def describe_adapter(folder: Path) -> AdapterSheet:
    """The sheet of the adapter in `folder`. Raises NotFound, InvalidInput, UnsupportedModel for no LoRA or DoRA."""
    config = _read(folder / _CONFIG)
    if config.get("modules_to_save") == ["score"]:  # a trained head beside it
        config["modules_to_save"] = None
    spec = from_peft(config, str(folder / _CONFIG))
    shapes = _read_shapes(folder / _WEIGHTS)
    origin = _read(folder / _ORIGIN) if (folder / _ORIGIN).exists() else {}
    down = {name.partition(".lora_A")[0]: shape for name, shape in shapes.items() if ".lora_A" in name}
    return AdapterSheet(
        kind="DoRA" if spec.dora else "rsLoRA" if spec.rslora else "LoRA",
        rank=max((shape[0] for shape in down.values()), default=0),
        alpha=spec.alpha,
        dropout=spec.dropout,
        ranks=dict(spec.ranks),
        targets=tuple(sorted({name.rpartition(".")[2] for name in down})),
        layers=len(down),
        parameters=sum(math.prod(shape) for shape in shapes.values()),
        size_bytes=(folder / _WEIGHTS).stat().st_size,
        base=str(origin.get("base", "")),
        base_digest=str(origin.get("base_digest", "")),
        origin=_tell_origin(origin),
        made_from=origin,
    )


def _tell_origin(origin: dict[str, Any]) -> str:
    if not origin:
        return "unknown: it has no espalier.json; `espalier adapter import` checks it"
    if found := origin.get("imported"):
        stated = f", which names {found['stated_base']} as its base" if found.get("stated_base") else ""
        return f"imported from {found.get('from')} ({found.get('format')}{stated})"
    if found := origin.get("combined"):
        return f"combined of {len(found.get('adapters', []))} adapters by {found.get('how')}"
    quantised = origin.get("quantised", "none")
    beside = f", on the base in {quantised}" if quantised != "none" else ""
    return f"trained here{beside}, on dataset {str(origin.get('dataset'))[:12] or '(not said)'}"


def _read_shapes(path: Path) -> dict[str, list[int]]:
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    except FileNotFoundError:
        raise NotFound(
            f"no file {path}", hint="an adapter of another trainer comes in by `espalier adapter import`"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise InvalidInput(f"not a safetensors file: {error!r}", where=str(path)) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise NotFound(f"no file {path}", hint="name the folder of an adapter, as PEFT writes it") from None
    except ValueError as error:
        raise InvalidInput(f"not JSON: {error}", where=str(path)) from None
    if not isinstance(found, dict):
        raise InvalidInput("not a JSON object", where=str(path))
    return found
