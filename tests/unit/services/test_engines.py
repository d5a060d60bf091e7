"""Which engine answers for a base is said by the settings, and by nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from espalier.core.config import EngineConfig, ServeConfig
from espalier.core.errors import InvalidInput, NotFound
from espalier.gateway.route import Target
from espalier.serve.engine import Engine
from espalier.serve.engines.openai import OpenAIEngine
from espalier.serve.engines.vllm import VllmEngine
from espalier.services.engines import choose_engine, open_engine
from espalier.services.resolver import RegistryResolver
from espalier.store.store import open_store
from espalier.store.workspace import init_workspace
from espalier.testing.tiny import make_tiny_base


def serve(**engines: EngineConfig) -> ServeConfig:
    return ServeConfig(engines={name.replace("_", ":").replace("ANY", "*"): engine for name, engine in engines.items()})


def test_its_own_row_comes_before_a_pattern_and_a_longer_pattern_before_a_shorter_one() -> None:
    own, near, far = (EngineConfig(url=url) for url in ("http://own", "http://near", "http://far"))
    told = serve(hf_a=own, hf_ANY=near, ANY=far)
    assert [choose_engine(base, told) for base in ("hf:a", "hf:ab", "path:x")] == [own, near, far]


def test_where_no_row_matches_it_is_this_process_or_several_where_they_are_allowed() -> None:
    assert choose_engine("hf:a", ServeConfig()).kind == "embedded"
    assert choose_engine("hf:a", ServeConfig(max_replicas=2)).kind == "replicas"


def test_a_kind_nobody_makes_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(InvalidInput, match="vlm") as caught:
        choose_engine("hf:a", serve(hf_b=EngineConfig(kind="vlm")))
    assert "vllm" in caught.value.hint


def test_a_star_within_a_name_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"\*"):
        choose_engine("hf:a", ServeConfig(engines={"hf:*/b": EngineConfig()}))


def test_an_engine_is_made_of_the_kind_that_was_chosen_and_not_started(tmp_path: Path) -> None:
    base = f"path:{make_tiny_base(tmp_path / 'base')}"
    rows = {
        base: EngineConfig(),
        "hf:*": EngineConfig(kind="vllm", url="http://127.0.0.1:1"),
        "path:other": EngineConfig(kind="openai", url="http://127.0.0.1:1"),
    }
    told = ServeConfig(engines=rows)
    made = [open_engine(name, place=base, serve=told, folder=tmp_path) for name in (base, "hf:a/b", "path:other")]
    assert [type(engine) for engine in made] == [Engine, VllmEngine, OpenAIEngine]


def test_an_option_that_is_wrong_is_named_by_its_row(tmp_path: Path) -> None:
    told = serve(hf_ANY=EngineConfig(kind="vllm", options={"max_loras": 0}))
    with pytest.raises(InvalidInput) as caught:
        open_engine("hf:a", place="hf:a", serve=told, folder=tmp_path)
    assert caught.value.where == "serve.engines.hf:*.options"


def test_a_base_that_a_server_elsewhere_has_may_be_asked_without_being_here(tmp_path: Path) -> None:
    store = open_store(init_workspace(tmp_path / "project"))
    rows = {"hf:far/away": EngineConfig(kind="openai", url="http://127.0.0.1:1"), "hf:my/*": EngineConfig(kind="vllm")}
    resolver = RegistryResolver(store, ServeConfig(max_context_tokens=4096, engines=rows))
    try:
        assert resolver.find_base("hf:far/away") == Target("hf:far/away", "hf:far/away", "", 4096, is_bounded=True)
        assert "hf:far/away" in [listing.id for listing in resolver.list_models()]
        with pytest.raises(NotFound):
            resolver.find_base("hf:my/own")  # vLLM is given the files that are here
    finally:
        store.close()
