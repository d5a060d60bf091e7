"""A recipe may name dataset versions to be compared with; here their folders take the place of their names.

So the data stage, which knows no catalogue, reads folders; and as a folder's name is the digest of what is in it, the
manifest still says which version it was, wherever a name points later.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from espalier.data.spec import DataSpec
    from espalier.store.store import Store

_KIND = "dataset:"
# The key under which a step, or the leak gate, names what it compares with.
_FIELD = "against"


def place_versions(store: Store, spec: DataSpec, folder: Path) -> DataSpec:
    """The recipe with every `dataset:NAME@vN` under an `against` replaced by the version's folder.

    folder: the recipe's. The paths are relative, so that they say the same in a workspace that was moved. Raises
    InvalidInput, NotFound.
    """
    home = spec.home(folder)
    steps = tuple(_place(store, step, home) for step in spec.steps)
    return spec.model_copy(update={"steps": steps, "leaks": _place(store, spec.leaks, home)})


def _place(store: Store, spec: Any, home: Path) -> Any:
    named = getattr(spec, _FIELD, ())
    if not any(name.startswith(_KIND) for name in named):
        return spec
    return spec.model_copy(update={_FIELD: tuple(_find_folder(store, name, home) for name in named)})


def _find_folder(store: Store, name: str, home: Path) -> str:
    from espalier.services.catalogue import find_dataset

    if not name.startswith(_KIND):
        return name
    found = store.artifacts.materialise(find_dataset(store, name).digest)
    return os.path.relpath(found, home.resolve())
