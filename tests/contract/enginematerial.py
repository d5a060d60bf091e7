"""What the tests of engines share: a tiny base, two adapters on it, one on another base, and the contract over them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from espalier.nn.lora import LoraSpec
from espalier.serve.engine import Engine
from espalier.testing.contracts.engine import EngineContract, Held
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


@contextmanager
def hold_engines() -> Iterator[None]:
    """The engines in this process stand still while an answer in them has 20 tokens, until they are stopped."""
    left, step = threading.Event(), Engine._step

    def is_held(engine: Engine) -> bool:
        running = engine._scheduler.running
        return not engine._stopping and any(len(work.answer) >= 20 and not work.cancelled for work in running)

    def step_or_stand(engine: Engine) -> bool:
        while is_held(engine) and not left.wait(0.005):
            pass
        return step(engine)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "_step", step_or_stand)
        try:
            yield
        finally:
            left.set()


class MaterialContract(EngineContract):
    """The contract over what the fixture `material` made. `held` is for those that answer by an `Engine` in here."""

    @pytest.fixture
    def held(self) -> Held:
        return hold_engines

    @pytest.fixture
    def base(self, material: Material) -> str:
        return f"path:{material.base}"

    @pytest.fixture
    def adapters(self, material: Material) -> dict[str, Path]:
        return material.adapters

    @pytest.fixture
    def foreign(self, material: Material) -> Path:
        return material.foreign
