from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from espalier.nn.adapters import attach_adapters, save_adapter
from espalier.nn.base import LoadedBase, load_base
from espalier.nn.lora import LoraSpec
from espalier.testing.tiny import make_tiny_base

# Adapters as unlike each other as real ones: rank, strength and layers differ.
SPECS = {
    "a": LoraSpec(rank=4, alpha=8),
    "b": LoraSpec(rank=16, alpha=5, rslora=True),
    "c": LoraSpec(rank=3, alpha=6, targets=("q_proj", "down_proj")),
    "d": LoraSpec(rank=4, alpha=8),
}


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def adapter_folders(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for number, (name, spec) in enumerate(SPECS.items()):
        base = load_base(f"path:{tiny_folder}")
        adapters = attach_adapters(base.model, spec, seed=number)
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in adapters.parameters():
                parameter.normal_(std=0.12, generator=generator)
        folders[name] = tmp_path_factory.mktemp(f"adapter-{name}")
        save_adapter(folders[name], adapters, base)
    return folders


@pytest.fixture
def load_tiny(tiny_folder: Path) -> Callable[[], LoadedBase]:
    return lambda: load_base(f"path:{tiny_folder}")
