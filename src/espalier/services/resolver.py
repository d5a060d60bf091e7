"""`RegistryResolver`: a name as a client writes it -> an approved version, or a base. Loads and answers nothing."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.core.errors import Conflict, NotFound, did_you_mean
from espalier.core.refs import Ref
from espalier.gateway.route import ReservationTable, Target
from espalier.nn.locate import QUANTISED
from espalier.services.bases import place_base
from espalier.services.capacitybook import CapacityBook
from espalier.services.engines import runs_elsewhere
from espalier.services.registrymemory import RegistryMemory
from espalier.wire.openai.listing import Listing

if TYPE_CHECKING:
    from espalier.core.config import ServeConfig
    from espalier.core.types import Deployment
    from espalier.store.store import Store


class RegistryResolver:
    """Implements gateway.route.Resolver: only approved versions may serve, and bases that ship or are registered.

    It is asked for each request: what takes a look at all models, or at a base's files, is remembered while neither
    changes. What an alias and a deployment mean, and whether a version is approved, is read each time.
    """

    def __init__(self, store: Store, config: ServeConfig) -> None:
        self._store = store
        self._config = config
        self._memory = RegistryMemory(store)
        self._folders: dict[str, Path] = {}  # of bases that are artifacts, which never change
        self.book = CapacityBook(store, self)

    def find_version(self, ref: Ref) -> Target:
        """Raises NotFound, and Conflict for a version that is not approved."""
        from espalier.registry.versions import get_version

        version = get_version(self._store, str(ref))
        if version.status != "Approved":
            raise Conflict(
                f"{version.ref} is {version.status}, only approved versions answer",
                hint=f"espalier models approve {version.ref}",
            )
        return self._target(version.ref, version.base, version.adapter)

    def find_base(self, name: str) -> Target:
        """Raises NotFound for a base that neither ships, nor stands under a registered model, nor has an engine."""
        known = self._memory.recall("bases", self._bases)
        if name not in known:
            raise NotFound(f"base {name} is not served here", hint=did_you_mean(name, known))
        return self._target(name, name, "")

    def find_digest(self, digest: str) -> Target:
        """The newest approved version made of that artifact. Raises NotFound, Conflict for one that is not approved."""
        made = self._memory.recall("made of", self._list_made)
        if digest not in made:
            raise NotFound(f"no version is made of artifact {digest:.80}", hint="espalier models list")
        return self.find_version(Ref.parse(made[digest], kind="model"))

    def find_deployment(self, name: str) -> Deployment | None:
        """The deployment of that name as it is now, or None."""
        from espalier.registry.deployments import find_deployment

        return find_deployment(self._store, name)

    def list_reservations(self) -> ReservationTable:
        """What is reserved now; at most half a second old."""
        return self.book.table()

    def list_models(self, *, versions: bool = False) -> Sequence[Listing]:
        """Bases, deployments, `name@alias` for every alias, and, where `versions`, each approved `name@vN`."""
        return self._memory.recall(("models", versions), functools.partial(self._list_models, versions=versions))

    def _list_models(self, *, versions: bool) -> Sequence[Listing]:
        from espalier.registry.aliases import list_aliases
        from espalier.registry.deployments import list_deployments
        from espalier.registry.versions import list_models, list_versions

        listings = [Listing(base) for base in self._bases()]
        listings += [Listing(each.name, each.at_ms) for each in list_deployments(self._store)]
        for newest in list_models(self._store):
            listings += [
                Listing(f"{newest.name}@{move.alias}", move.at_ms) for move in list_aliases(self._store, newest.name)
            ]
            if versions:
                approved = (v for v in list_versions(self._store, newest.name) if v.status == "Approved")
                listings += [Listing(f"{v.name}@v{v.version}", v.created_ms) for v in approved]
        return tuple(listings)

    def _list_made(self) -> Mapping[str, str]:
        """The newest version that is made of each artifact, an approved one before others."""
        from espalier.registry.versions import list_models, list_versions

        versions = [each for newest in list_models(self._store) for each in list_versions(self._store, newest.name)]
        versions.sort(key=lambda version: (version.status == "Approved", version.created_ms))
        return {digest: each.ref for each in versions for digest in (each.adapter, each.made_base) if digest}

    def _bases(self) -> list[str]:
        from espalier.nn.locate import list_builtins
        from espalier.registry.versions import list_models

        builtins = [f"builtin:{name}" for name in list_builtins()]
        named = {version.base for version in list_models(self._store) if not version.made_base}
        named |= {name for name in self._config.engines if not name.endswith("*")}  # may stand on no disk of ours
        registered = sorted(named - set(builtins))  # one that was made here is asked for by its model's name
        return [*builtins, *registered]

    def _target(self, model: str, base: str, adapter: str) -> Target:
        config = self._describe(base)
        if config.get(QUANTISED):
            self._memory.recall(("passed", base), functools.partial(self._require_passed, base))
        most_tokens = self._config.max_context_tokens
        context_tokens = int(config.get("max_position_embeddings", 2048)) if config else most_tokens
        elsewhere = runs_elsewhere(base, self._config)
        return Target(model, base, adapter, min(most_tokens, context_tokens), is_bounded=elsewhere)

    def _describe(self, base: str) -> Mapping[str, Any]:
        """The base's config.json; nothing of one that a server elsewhere has by itself. Raises NotFound."""
        try:
            return _read_config(self._place(base))
        except NotFound:
            if not runs_elsewhere(base, self._config):
                raise
            return {}

    def _place(self, base: str) -> str:
        """A name that nn can load; an artifact's files are compared with their digests when an engine loads them."""
        if base not in self._folders or not self._folders[base].is_dir():
            place = place_base(self._store, base)
            if place == base:
                return base
            self._folders[base] = Path(place.removeprefix("path:"))
        return f"path:{self._folders[base]}"

    def _require_passed(self, base: str) -> None:
        """Raises GateFailed for a quantised base without the evidence that it passed against its original."""
        from espalier.core.errors import GateFailed
        from espalier.registry.fidelity import require_passed

        if not base.startswith("artifact:"):
            raise GateFailed(
                f"{base} is quantised, and nothing says how it compares with its original",
                hint="`espalier models quantise` makes one, measures it and registers what passes",
            )
        require_passed(self._store, base.removeprefix("artifact:"))


def _read_config(base: str) -> Mapping[str, Any]:
    from espalier.nn.locate import locate_base

    path = locate_base(base, fetch=False) / "config.json"
    stat = path.stat()
    return _parse_config(path, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _parse_config(path: Path, inode: int, size_bytes: int, mtime_ns: int) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(path.read_bytes())
    return found
