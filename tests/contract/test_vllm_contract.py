"""vLLM behind `ModelEngine`: the whole contract against a strict double of its server, which checks every request."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.contract.enginematerial import Material, MaterialContract, make_material

from espalier.core.config import EngineConfig, ServeConfig
from espalier.serve.engines.plan import EnginePlan
from espalier.serve.engines.vllm import VllmEngine
from espalier.testing.vllm.server import VllmSettings, serve_vllm

_BASE, _KEY = "path:the-base", "the server's own"


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return make_material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def engine(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmEngine]:
    settings = VllmSettings(material.base, "the-base", key=_KEY, max_model_len=512)
    with pytest.MonkeyPatch.context() as patch, serve_vllm(settings) as double:
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
