"""Bases by their names in the registry: what `artifact:DIGEST`, a model tuned in full here, is on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from espalier.store.store import Store

_SCHEME = "artifact:"


def name_base(digest: str) -> str:
    """What the registry calls a base that stands in the store as an artifact."""
    return _SCHEME + digest


def list_parts(store: Store, model: str) -> dict[str, str]:
    """What was trained of a model version, by the step's input it goes to: `adapter`, `base` or both.

    Raises NotFound for a version of which nothing was.
    """
    from espalier.core.errors import NotFound
    from espalier.registry.versions import get_version

    version = get_version(store, model)
    parts = {"adapter": version.adapter, "base": version.made_base}
    found = {port: f"sha256:{digest}" for port, digest in parts.items() if digest}
    if not found:
        raise NotFound(f"{version.ref} is a base without adapter", hint="name a version that was tuned")
    return found


def place_base(store: Store, base: str) -> str:
    """A name that nn can load: the artifact laid out as a folder, any other name as it is. Raises NotFound."""
    if not base.startswith(_SCHEME):
        return base
    return f"path:{store.artifacts.materialise(base.removeprefix(_SCHEME))}"
