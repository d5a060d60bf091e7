"""A server of OpenAI's API behind `ModelEngine`: the whole contract, the server being another Espalier's gateway."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from tests.contract.enginematerial import Material, MaterialContract, make_material

from espalier.core.config import EngineConfig, GatewayConfig, ServeConfig
from espalier.core.types import SamplingSpec
from espalier.gateway.app import Gateway
from espalier.gateway.assembly import open_gateway
from espalier.gateway.route import Target
from espalier.nn.base import load_base
from espalier.serve.engine import Engine
from espalier.serve.engines.openai import OpenAIEngine
from espalier.serve.engines.plan import EnginePlan
from espalier.store.store import open_store
from espalier.store.workspace import init_workspace
from espalier.testing.resolver import FixedResolver

_BASE, _THEIRS = "builtin:ours", "builtin:theirs"


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return make_material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def url(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The other house: a base under its own name, two adapters as versions of a model."""
    engine = Engine(load_base(f"path:{material.base}"), ServeConfig(max_batch=4, max_context_tokens=512)).start()
    for digest, folder in material.adapters.items():
        engine.load_adapter(digest, folder)
    name, sampling = f"path:{material.base}", SamplingSpec(max_tokens=20)
    versions = {
        f"support@v{number}": Target(f"model:support@v{number}", name, digest, 512, sampling)
        for number, digest in enumerate(material.adapters, 1)
    }
    resolver = FixedResolver(versions, {_THEIRS: Target(_THEIRS, name, "", 512, sampling)})
    store = open_store(init_workspace(tmp_path_factory.mktemp("house")))
    config = GatewayConfig(require_key=False, requests_per_minute=100_000)
    with _serve(open_gateway(store, engine, resolver, config)) as url:
        yield url
    engine.stop()
    store.close()


@contextmanager
def _serve(gateway: Gateway) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(gateway, port=0, log_level="error", ws="none", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            thread.join(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def engine(url: str, material: Material, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAIEngine]:
    names = {digest[:16]: f"support@v{number}" for number, digest in enumerate(material.adapters, 1)}
    config = EngineConfig(kind="openai", url=url, options={"model": _THEIRS, "adapters": names})
    engine = OpenAIEngine(EnginePlan(_BASE, _BASE, ServeConfig(), config, tmp_path_factory.mktemp("engine")))
    yield engine.start()
    engine.stop()


class TestOpenAIEngine(MaterialContract):
    lacks = frozenset({"tokens"})

    @pytest.fixture
    def base(self) -> str:
        return _BASE
