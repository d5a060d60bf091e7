"""What may be asked is looked up for every request: without reading the whole registry, and never out of date."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from espalier.core.config import PolicyConfig, ServeConfig
from espalier.core.errors import Conflict, NotFound
from espalier.core.types import ModelVersion
from espalier.gateway.route import resolve
from espalier.registry import versions as registry
from espalier.registry.aliases import promote
from espalier.registry.approvals import approve
from espalier.registry.versions import Registration, register
from espalier.services.registrymemory import RegistryMemory
from espalier.services.resolver import RegistryResolver
from espalier.store.store import Store, open_store
from espalier.store.workspace import init_workspace
from espalier.testing.tiny import make_tiny_base

DIGEST = "b" * 64
TRUSTING = PolicyConfig(four_eyes=False, require_report=False, require_dataset=False)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(init_workspace(tmp_path / "workspace"))
    yield opened
    opened.close()


def make_adapter(store: Store, folder: Path) -> str:
    folder.mkdir()
    (folder / "espalier.json").write_text(json.dumps({"base": "any", "base_digest": DIGEST}), "utf-8")
    (folder / "adapter_model.safetensors").write_text(folder.name, "utf-8")
    return store.artifacts.put("adapter", folder).digest


def add(store: Store, name: str, base: str = "builtin:seedling", adapter: str = "") -> ModelVersion:
    return register(store, Registration(name=name, base=base, base_digest=DIGEST, adapter=adapter), actor="ann")


def allow(store: Store, version: ModelVersion) -> ModelVersion:
    return approve(store, TRUSTING, version.ref, actor="bob")


def test_requests_read_the_whole_registry_once_between_two_changes_of_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = make_adapter(store, tmp_path / "adapter")
    allow(store, add(store, "support", adapter=adapter))
    read: list[str] = []
    list_versions = registry.list_versions

    def note(store: Store, name: str) -> Sequence[ModelVersion]:
        read.append(name)
        return list_versions(store, name)

    monkeypatch.setattr(registry, "list_versions", note)
    resolver = RegistryResolver(store, ServeConfig())
    for _ in range(5):
        assert resolve(resolver, f"artifact:{adapter}").model == "model:support@v1"
        with pytest.raises(NotFound):
            resolve(resolver, f"artifact:{'0' * 64}")
    assert read == ["support"]
    add(store, "other")
    assert resolve(resolver, f"artifact:{adapter}").model == "model:support@v1"
    assert sorted(read) == ["other", "support", "support"]


def test_what_is_registered_approved_or_promoted_meanwhile_is_known_to_the_next_request(
    store: Store, tmp_path: Path
) -> None:
    resolver = RegistryResolver(store, ServeConfig())
    base = f"path:{make_tiny_base(tmp_path / 'base')}"
    for name in (base, "support"):
        with pytest.raises(NotFound):
            resolve(resolver, name)
    adapter = make_adapter(store, tmp_path / "adapter")
    elsewhere = open_store(store.workspace)  # as another process has it
    try:
        version = add(elsewhere, "support", base, adapter)
        assert resolve(resolver, base).base == base
        with pytest.raises(Conflict, match="PendingManualApproval"):
            resolve(resolver, f"artifact:{adapter}")
        allow(elsewhere, version)
        assert resolve(resolver, f"artifact:{adapter}").model == "model:support@v1"
        with pytest.raises(NotFound):
            resolve(resolver, "support")
        promote(elsewhere, version.ref, "production", actor="bob")
        assert resolve(resolver, "support").adapter == adapter
        with pytest.raises(NotFound) as caught:
            resolve(resolver, "suport")
        assert "support" in caught.value.hint
        allow(elsewhere, add(elsewhere, "renamed", base, adapter))  # the newest of what is approved
        assert resolve(resolver, f"artifact:{adapter}").model == "model:renamed@v1"
    finally:
        elsewhere.close()


def test_a_base_whose_config_changes_is_read_again(store: Store, tmp_path: Path) -> None:
    folder = make_tiny_base(tmp_path / "base")
    add(store, "support", f"path:{folder}")
    resolver = RegistryResolver(store, ServeConfig(max_context_tokens=4096))
    before = resolver.find_base(f"path:{folder}").context_tokens
    config = json.loads((folder / "config.json").read_bytes())
    arriving = tmp_path / "config.json"
    arriving.write_text(json.dumps(config | {"max_position_embeddings": before - 7}), "utf-8")
    arriving.replace(folder / "config.json")
    assert resolver.find_base(f"path:{folder}").context_tokens == before - 7


def test_a_base_of_the_store_whose_folder_was_swept_away_is_laid_out_again(store: Store, tmp_path: Path) -> None:
    digest = store.artifacts.put("base", make_tiny_base(tmp_path / "base")).digest
    promote(store, allow(store, add(store, "full", f"artifact:{digest}")).ref, "production", actor="bob")
    resolver = RegistryResolver(store, ServeConfig())
    first = resolve(resolver, "full")
    shutil.rmtree(store.artifacts.materialise(digest))
    assert resolve(resolver, "full") == first


def test_what_was_found_while_the_registry_changed_is_not_kept(store: Store) -> None:
    memory = RegistryMemory(store)

    def find_late() -> int:
        add(store, "support")
        return len(registry.list_models(store)) - 1  # as if it had been read just before

    assert memory.recall("how many", find_late) == 0
    assert memory.recall("how many", lambda: len(registry.list_models(store))) == 1
    assert memory.recall("how many", lambda: 99) == 1
