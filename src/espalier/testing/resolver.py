"""A `Resolver` over a fixed table, for tests of the gateway without a registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from espalier.core.errors import NotFound
from espalier.core.refs import Ref
from espalier.core.types import Deployment
from espalier.gateway.route import ReservationTable, Target
from espalier.wire.openai.listing import Listing


class FixedResolver:
    """`versions` maps `support@production` and the like to what answers; `bases` are served as they are."""

    def __init__(self, versions: Mapping[str, Target], bases: Mapping[str, Target]) -> None:
        self._versions = dict(versions)
        self._bases = dict(bases)
        self.deployments: dict[str, Deployment] = {}
        self.reservations = ReservationTable()

    def find_version(self, ref: Ref) -> Target:
        name = f"{ref.name}@{ref.selector}"
        if name not in self._versions:
            raise NotFound(f"no model {name}")
        return self._versions[name]

    def find_base(self, name: str) -> Target:
        if name not in self._bases:
            raise NotFound(f"no base {name}")
        return self._bases[name]

    def find_digest(self, digest: str) -> Target:
        found = [target for target in self._versions.values() if target.adapter == digest]
        if not found:
            raise NotFound(f"no version is made of artifact {digest}")
        return found[0]

    def find_deployment(self, name: str) -> Deployment | None:
        return self.deployments.get(name)

    def list_reservations(self) -> ReservationTable:
        return self.reservations

    def list_models(self) -> Sequence[Listing]:
        return [Listing(name, 1_700_000_000_000) for name in (*self._versions, *self._bases)]
