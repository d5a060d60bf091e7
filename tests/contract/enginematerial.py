"""What the tests of engines share: a tiny base, two adapters on it, one on another base, and the contract over them."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from espalier.nn.lora import LoraSpec
from espalier.testing.contracts.engine import EngineContract
from espalier.testing.tiny import make_tiny_adapter, make_tiny_base
from espalier.testing.tooltemplates import HERMES

# Unlike each other, and the second unlike from layer to layer.
SPECS = (
    LoraSpec(rank=4, alpha=8),
    LoraSpec(rank=8, alpha=5, rslora=True, ranks={"q_proj": 3, "down_proj": 2}, alphas={"q_proj": 9}),
)


@dataclass(frozen=True, slots=True)
class Material:
    """Folders; adapters by a digest."""

    base: Path
    adapters: dict[str, Path]
    foreign: Path


def make_material(root: Path) -> Material:
    """Everything, in folders under `root`."""
    base = make_tiny_base(root / "base")
    (base / "chat_template.jinja").write_text(HERMES, "utf-8")  # of a family that has tools
    other = make_tiny_base(root / "other", seed=9)
    adapters = {}
    for number, spec in enumerate(SPECS):
        folder = make_tiny_adapter(root / f"adapter-{number}", base, spec, seed=number)
        adapters[sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()] = folder
    return Material(base, adapters, make_tiny_adapter(root / "foreign", other, SPECS[0]))


class MaterialContract(EngineContract):
    """The contract over what the fixture `material` made."""

    @pytest.fixture
    def base(self, material: Material) -> str:
        return f"path:{material.base}"

    @pytest.fixture
    def adapters(self, material: Material) -> dict[str, Path]:
        return material.adapters

    @pytest.fixture
    def foreign(self, material: Material) -> Path:
        return material.foreign
