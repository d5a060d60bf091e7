"""The engine in this process, over a tiny random base, keeps the promises of a `ModelEngine`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.contract.enginematerial import Material, MaterialContract, make_material

from espalier.core.config import ServeConfig
from espalier.nn.base import load_base
from espalier.serve.engine import Engine


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return make_material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def engine(material: Material) -> Iterator[Engine]:
    engine = Engine(load_base(f"path:{material.base}"), ServeConfig(max_batch=4, max_context_tokens=512)).start()
    yield engine
    engine.stop()


class TestEngine(MaterialContract):
    """Everything it promises."""
