from __future__ import annotations

from pathlib import Path

import pytest

from espalier.nn.base import LoadedBase, load_base
from espalier.testing.tiny import make_tiny_base


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def base(tiny_folder: Path) -> LoadedBase:
    return load_base(f"path:{tiny_folder}")
