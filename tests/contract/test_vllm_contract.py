"""vLLM behind `ModelEngine`: the whole contract against a strict double of its server, which checks every request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.contract.enginematerial import Material, MaterialContract, make_material

from espalier.core.config import EngineConfig, ServeConfig
from espalier.serve.engines.plan import EnginePlan
from espalier.serve.engines.vllm import VllmEngine
from espalier.testing.contracts.engine import Held
from espalier.testing.vllm.server import VllmDouble, VllmSettings, serve_vllm

_BASE, _KEY = "path:the-base", "the server's own"


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return make_material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def double(material: Material) -> Iterator[VllmDouble]:
    with serve_vllm(VllmSettings(material.base, "the-base", key=_KEY, max_model_len=512)) as running:
        yield running


@pytest.fixture(scope="module")
def engine(material: Material, double: VllmDouble, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmEngine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THE_KEY", _KEY)
        config = EngineConfig(kind="vllm", url=f"{double.url}/v1", key_env="THE_KEY", options={"priorities": True})
        folder = tmp_path_factory.mktemp("engine")
        engine = VllmEngine(EnginePlan(_BASE, f"path:{material.base}", ServeConfig(), config, folder))
        yield engine.start()
        engine.stop()


class TestVllmEngine(MaterialContract):
    @pytest.fixture
    def base(self) -> str:
        return _BASE

    @pytest.fixture
    def held(self, double: VllmDouble) -> Held:
        @contextmanager
        def hold() -> Iterator[None]:
            double.gate.clear()
            try:
                yield
            finally:
                double.gate.set()

        return hold
