"""What a server has loaded, told and changed by operations; and what is loaded when it starts."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from espalier.core.config import ServeConfig
from espalier.core.errors import NotFound, Unavailable
from espalier.core.ports import ChatRequest, Delta, EngineLoad
from espalier.core.types import ModelVersion
from espalier.registry.versions import Registration, register
from espalier.services.context import Context, open_context
from espalier.services.hosting import ListEngines, NameLoaded, engines, load, unload
from espalier.services.ownserver import server_url
from espalier.services.pool import ModelPool
from espalier.services.warming import Warming
from espalier.store.workspace import init_workspace


class Quiet:
    """An engine that is always free."""

    def __init__(self, base: str) -> None:
        self.adapters: list[str] = []

    def start(self) -> Quiet:
        return self

    def stop(self) -> None:
        pass

    def load_adapter(self, digest: str, folder: Path) -> None:
        self.adapters.append(digest)

    def unload_adapter(self, digest: str) -> None:
        self.adapters.remove(digest)

    def list_adapters(self) -> list[str]:
        return self.adapters

    def load(self) -> EngineLoad:
        return EngineLoad(running=2, slots=4, queue_s=0.12345)

    def count_prompt_tokens(self, request: ChatRequest) -> int:
        return 1

    async def stream(self, request: ChatRequest) -> Any:
        yield Delta("", "stop")


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Context]:
    """A context in no server."""
    init_workspace(tmp_path / "workspace")
    opened = open_context(tmp_path / "workspace", overrides=["serve.port=1"])
    yield opened
    opened.close()


@pytest.fixture
def inside(outside: Context) -> Iterator[Context]:
    """The same in a server."""
    pool = ModelPool(outside.store, ServeConfig(), open_engine=Quiet)
    yield replace(outside, hosting=pool)
    pool.stop()


def put_adapter(context: Context, folder: Path) -> str:
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(bytes(300))
    return context.store.artifacts.put("adapter", folder / "adapter").digest


def test_what_is_loaded_is_told_with_its_load_and_its_adapters(inside: Context, tmp_path: Path) -> None:
    assert engines(inside, ListEngines()) == []
    digest = put_adapter(inside, tmp_path)
    one = load(inside, NameLoaded(base="builtin:seedling", adapter=digest))
    assert one is not None and (one.base, one.state, one.running, one.slots, one.replicas) == (
        "builtin:seedling", "ready", 2, 4, 1,
    )  # fmt: skip
    (adapter,) = engines(inside, ListEngines())[0].adapters
    assert (adapter.digest, adapter.memory_bytes, adapter.requests) == (digest, 300, 0)


def test_an_engine_that_cannot_be_reached_keeps_no_other_from_being_told(
    inside: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(inside, NameLoaded(base="builtin:seedling"))

    def fail(engine: Quiet) -> EngineLoad:
        raise Unavailable("nobody answers at its address")

    monkeypatch.setattr(Quiet, "load", fail)
    (told,) = engines(inside, ListEngines())
    assert (told.base, told.state, told.running) == ("builtin:seedling", "unreachable", 0)


def test_unloading_lets_an_adapter_go_and_then_the_base(inside: Context, tmp_path: Path) -> None:
    digest = put_adapter(inside, tmp_path)
    load(inside, NameLoaded(base="builtin:seedling", adapter=digest))
    (left,) = unload(inside, NameLoaded(base="builtin:seedling", adapter=digest))
    assert left.adapters == ()
    assert unload(inside, NameLoaded(base="builtin:seedling")) == []
    with pytest.raises(NotFound, match="not loaded"):
        unload(inside, NameLoaded(base="builtin:seedling"))


def test_an_adapter_is_named_by_its_version_or_the_first_of_its_figures(inside: Context, tmp_path: Path) -> None:
    put_adapter(inside, tmp_path)
    facts = {"base": "builtin:seedling", "base_digest": "b" * 64, "special_tokens": {}, "recipe": ""}
    (tmp_path / "adapter" / "espalier.json").write_text(json.dumps(facts), "utf-8")
    digest = inside.store.artifacts.put("adapter", tmp_path / "adapter").digest
    made = Registration(name="support", base="builtin:seedling", base_digest="b" * 64, adapter=digest)
    register(inside.store, made, actor="ann")
    for word in ("support@v1", digest[:12], digest):
        one = load(inside, NameLoaded(base="builtin:seedling", adapter=word))
        assert one is not None and [adapter.digest for adapter in one.adapters] == [digest]
        (left,) = unload(inside, NameLoaded(base="builtin:seedling", adapter=word))
        assert left.adapters == ()
    for word in ("f" * 12, "support@v2", "suport"):
        with pytest.raises(NotFound):
            load(inside, NameLoaded(base="builtin:seedling", adapter=word))


def test_without_a_server_it_is_said_that_none_answers_and_how_to_name_one(outside: Context) -> None:
    with pytest.raises(Unavailable, match=r"no server answers at http://127\.0\.0\.1:1 ") as caught:
        engines(outside, ListEngines())
    assert "espalier serve" in caught.value.hint and "serve.port" in caught.value.hint
    with pytest.raises(Unavailable, match="not in this one") as caught:
        load(outside, NameLoaded(base="builtin:seedling"))
    assert "--server http://127.0.0.1:1 " in caught.value.hint
    assert server_url(ServeConfig(host="::1")) == "http://[::1]:8321"


def test_a_server_is_warm_once_every_aliased_version_was_tried(
    inside: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, tried = threading.Event(), []

    def version(number: int) -> ModelVersion:
        return ModelVersion.model_construct(name="m", version=number, base="builtin:seedling", adapter="")

    def warm(wanted: ModelVersion) -> None:
        assert gate.wait(20)
        tried.append(wanted.version)
        if wanted.version == 1:
            raise NotFound("its base is gone")
        if wanted.version == 2:
            raise ZeroDivisionError("a bug in reading its files")

    monkeypatch.setattr(Warming, "_list_aliased", lambda self: [version(1), version(2), version(3)])
    warming = Warming(inside.store, inside.hosting)  # type: ignore[arg-type]
    monkeypatch.setattr(inside.hosting, "warm", warm)
    assert warming.count_cold() == 0
    warming.start()
    assert warming.count_cold() == 3
    gate.set()
    deadline_s = time.monotonic() + 60
    while warming.count_cold():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)
    assert tried == [1, 2, 3]
