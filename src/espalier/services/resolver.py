"""`RegistryResolver`: a name as a client writes it -> an approved version, or a base. Loads and answers nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from espalier.core.errors import Conflict, NotFound, did_you_mean
from espalier.core.refs import Ref
from espalier.gateway.route import ReservationTable, Target
from espalier.nn.locate import QUANTISED
from espalier.services.bases import place_base
from espalier.services.capacitybook import CapacityBook
from espalier.services.engines import runs_elsewhere
from espalier.wire.openai.listing import Listing

if TYPE_CHECKING:
    from espalier.core.config import ServeConfig
    from espalier.core.types import Deployment
    from espalier.store.store import Store


class RegistryResolver:
    """Implements gateway.route.Resolver: only approved versions may serve, and bases that ship or are registered."""

    def __init__(self, store: Store, config: ServeConfig) -> None:
        self._store = store
        self._config = config
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
        known = self._bases()
        if name not in known:
            raise NotFound(f"base {name} is not served here", hint=did_you_mean(name, known))
        return self._target(name, name, "")

    def find_digest(self, digest: str) -> Target:
        """The newest approved version made of that artifact. Raises NotFound, Conflict for one that is not approved."""
        from espalier.registry.versions import list_models, list_versions

        made = [
            version
            for newest in list_models(self._store)
            for version in list_versions(self._store, newest.name)
            if digest in (version.adapter, version.made_base)
        ]
        if not digest or not made:
            raise NotFound(f"no version is made of artifact {digest:.80}", hint="espalier models list")
        newest = max(made, key=lambda version: (version.status == "Approved", version.created_ms))
        return self.find_version(Ref.parse(newest.ref, kind="model"))

    def find_deployment(self, name: str) -> Deployment | None:
        """The deployment of that name as it is now, or None."""
        from espalier.registry.deployments import find_deployment

        return find_deployment(self._store, name)

    def list_reservations(self) -> ReservationTable:
        """What is reserved now; at most half a second old."""
        return self.book.table()

    def list_models(self, *, versions: bool = False) -> Sequence[Listing]:
        """Bases, deployments, `name@alias` for every alias, and, where `versions`, each approved `name@vN`."""
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
        return listings

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
            self._require_passed(base)
        most_tokens = self._config.max_context_tokens
        context_tokens = int(config.get("max_position_embeddings", 2048)) if config else most_tokens
        return Target(model, base, adapter, min(most_tokens, context_tokens))

    def _describe(self, base: str) -> dict[str, Any]:
        """The base's config.json; nothing of one that a server elsewhere has by itself. Raises NotFound."""
        try:
            return _read_config(place_base(self._store, base))
        except NotFound:
            if not runs_elsewhere(base, self._config):
                raise
            return {}

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


def _read_config(base: str) -> dict[str, Any]:
    from espalier.nn.locate import locate_base

    found: dict[str, Any] = json.loads((locate_base(base, fetch=False) / "config.json").read_bytes())
    return found
