"""Deployments: the names clients may ask for, and what answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from espalier.core.operations import operation
from espalier.core.refs import Ref
from espalier.core.types import Spec
from espalier.gateway.route import Target
from espalier.services.resolver import RegistryResolver

if TYPE_CHECKING:
    from espalier.services.context import Context


class ListDeployments(Spec):
    """Whether to list every approved version too."""

    versions: bool = Field(False, description="also name each approved version, not only aliases and bases")


class Deployment(Spec):
    """A name clients may ask for, and what answers."""

    model: str
    resolved: str
    base: str
    adapter: str


@operation("deployments.list", "GET /v1/deployments")
def list_all(context: Context, request: ListDeployments) -> list[Deployment]:
    """List what clients may ask for: aliases of approved versions, and bases."""
    resolver = RegistryResolver(context.store, context.config.config.serve)
    found = []
    for listing in resolver.list_models(versions=request.versions):
        target = _target_of(resolver, listing.id)
        found.append(Deployment(model=listing.id, resolved=target.model, base=target.base, adapter=target.adapter))
    return found


def _target_of(resolver: RegistryResolver, name: str) -> Target:
    if ":" in name:
        return resolver.find_base(name)
    return resolver.find_version(Ref.parse(name, kind="model"))
