"""API keys: made once and shown once; listed and revoked by id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from espalier.core.operations import operation
from espalier.core.types import Spec
from espalier.core.types.identity import Role

if TYPE_CHECKING:
    from espalier.gateway.keys import KeyState
    from espalier.services.context import Context

_MS_PER_MINUTE = 60_000
_MS_PER_DAY = 86_400_000


class CreateKey(Spec):
    """What the key may do, and for whom."""

    name: str = Field("default", description="what it is for, as lists show it")
    actor: str = Field("", description="whose key it is: approvals and costs are booked on them; empty = you")
    role: Role = Field("user", description="user: ask models; approver: also approve and promote; admin: everything")
    budget_usd: str = Field("", description="dollars it may spend; empty = the setting gateway.default_budget_usd")
    models: tuple[str, ...] = Field((), description="names or patterns it may ask, e.g. 'support*'; none = all")
    expires_days: int = Field(0, ge=0, description="days until it stops working; 0 = never")


class KeyView(Spec):
    """A key as lists show it: never its secret."""

    id: str
    name: str
    actor: str
    role: Role
    models: tuple[str, ...]
    spent_nusd: int
    left_nusd: int | None
    expires_ms: int
    revoked: bool


class KeyCreated(Spec):
    """The only time the secret is seen."""

    id: str
    secret: str
    actor: str
    role: Role
    note: str = "keep the secret now: it is stored as a hash and cannot be shown again"


@operation("keys.create", "POST /v1/keys", role="admin")
def create(context: Context, request: CreateKey) -> KeyCreated:
    """Create an API key. An admin's word, since a key comes with a budget of its own.

    Example:
        espalier keys create --name app --budget-usd 5 --models 'support*'
    """
    from espalier.core.money import parse_usd
    from espalier.gateway.keys import KeyRing

    context.require("admin")
    actor = request.actor or context.actor
    budget = parse_usd(request.budget_usd or context.config.config.gateway.default_budget_usd)
    made = KeyRing(context.store).create(
        request.name,
        actor=actor,
        role=request.role,
        budget_nusd=budget,
        models=request.models,
        lifetime_ms=request.expires_days * _MS_PER_DAY,
        created_by=context.actor,
    )
    return KeyCreated(id=made.key.id, secret=made.secret, actor=made.key.actor, role=made.key.role)


class LendKey(Spec):
    """For how long."""

    minutes: int = Field(60, ge=1, le=1440, description="when it ends by itself; it ends with your own key too")


@operation("keys.lend", "POST /v1/keys/lend")
def lend(context: Context, request: LendKey) -> KeyCreated:
    """Borrow a short-lived key that may ask what you may, on your own key's budget and limits.

    Example:
        espalier keys lend --minutes 10
    """
    from espalier.gateway.keys import KeyRing

    made = KeyRing(context.store).lend(
        context.actor, request.minutes * _MS_PER_MINUTE, lender=context.principal.key
    )  # fmt: skip
    return KeyCreated(id=made.key.id, secret=made.secret, actor=made.key.actor, role=made.key.role)


class ListKeys(Spec):
    """How many keys to list."""

    limit: int = Field(100, ge=1, le=1000, description="at most this many, the newest first")


@operation("keys.list", "GET /v1/keys", role="admin")
def list_all(context: Context, request: ListKeys) -> list[KeyView]:
    """List API keys with what they spent and what is left."""
    from espalier.gateway.keys import KeyRing

    return [_view(state) for state in KeyRing(context.store).list(request.limit)]


class RevokeKey(Spec):
    """Which key."""

    id: str = Field(description="the key's id, as `espalier keys list` shows it")


@operation("keys.revoke", "POST /v1/keys/{id}/revoke", positional=("id",), role="admin")
def revoke(context: Context, request: RevokeKey) -> KeyView:
    """Revoke an API key; it is refused from its next request on."""
    from espalier.gateway.keys import KeyRing

    ring = KeyRing(context.store)
    return _view(ring.describe(ring.revoke(request.id, actor=context.actor)))


def _view(state: KeyState) -> KeyView:
    key = state.key
    return KeyView(
        id=key.id,
        name=key.name,
        actor=key.actor,
        role=key.role,
        models=key.models,
        spent_nusd=state.spent_nusd,
        left_nusd=state.left_nusd,
        expires_ms=key.expires_ms,
        revoked=state.revoked,
    )
