"""A model's name as a client writes it -> the version, base and adapter that answer.

    support                         the deployment of that name, which shares its requests among versions; where there
                                    is none, the version its alias `production` points to
    support@staging                 the version that alias points to
    support@v2, model:support@v2    that version
    builtin:seedling, hf:O/N        a base, as it is
    artifact:DIGEST                 the version whose adapter, or whose own base, has that digest
    provisioned:gold                the model that reservation `gold` holds capacity for

Which versions exist and may serve is the registry's word: a `Resolver` is handed in. Does not know prices or keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from espalier.core.errors import InvalidInput, NotFound, did_you_mean
from espalier.core.refs import Ref
from espalier.core.types import Deployment, SamplingSpec
from espalier.gateway.split import choose_shadows, choose_variant
from espalier.wire.openai.listing import Listing

ARTIFACT = "artifact:"
BASES = ("builtin:", "hf:", "path:")
PROVISIONED = "provisioned:"
DEFAULT_ALIAS = "production"


@dataclass(frozen=True, slots=True)
class Target:
    """What answers a request. `defaults` is how it samples where the client says nothing."""

    model: str  # "model:support@v1", or the base's own name
    base: str
    adapter: str = ""  # artifact digest; empty = the base itself
    context_tokens: int = 1024
    defaults: SamplingSpec = field(default_factory=SamplingSpec)
    deployment: str = ""  # the deployment that chose it
    shadows: tuple[str, ...] = ()  # versions that are to answer a copy, unheard
    reservation: str = ""  # the reserved capacity it draws on
    is_bounded: bool = False  # its prompts are not counted, only bounded: the server that answers says what is too long

    @property
    def name(self) -> str:
        """`support` of `model:support@v1`; a base's name is whole."""
        return self.model.removeprefix("model:").partition("@")[0] if self.model.startswith("model:") else self.model

    @property
    def names(self) -> tuple[str, ...]:
        """What a price list or a key may call it."""
        return (self.model, self.name, self.base)


@dataclass(frozen=True, slots=True)
class ReservationTable:
    """What is reserved now."""

    by_target: Mapping[str, str] = field(default_factory=dict)  # a deployment, version or base -> its reservation
    models: Mapping[str, str] = field(default_factory=dict)  # a reservation -> the model's name as it was reserved

    def find(self, target: Target) -> str:
        """The reservation that requests for this target draw on; empty = none."""
        return self.by_target.get(target.deployment, "") or self.by_target.get(target.model, "")


class Resolver(Protocol):
    """What may be served. Both methods raise NotFound; they may block."""

    def find_version(self, ref: Ref) -> Target:
        """The version that `model:name@selector` means now. Raises also Conflict when it may not serve."""
        ...

    def find_base(self, name: str) -> Target: ...

    def find_digest(self, digest: str) -> Target:
        """The version of which that artifact was made. Raises also Conflict when none of them may serve."""
        ...

    def find_deployment(self, name: str) -> Deployment | None:
        """The deployment of that name now; None where there is none."""
        ...

    def list_reservations(self) -> ReservationTable: ...

    def list_models(self) -> Sequence[Listing]:
        """Every name that may be asked, the best first."""
        ...


def resolve(resolver: Resolver, name: str, *, asker: str = "", request: str = "") -> Target:
    """Whom `name` means for this asker and request, and the reservation it draws on.

    Raises NotFound, its `where` being `model`, with the nearest name there is.
    """
    table = resolver.list_reservations()
    if not name.startswith(PROVISIONED):
        target = find_target(resolver, name, asker=asker, request=request)
        return replace(target, reservation=table.find(target))
    reservation = name.removeprefix(PROVISIONED)
    if reservation not in table.models:
        hint = (
            did_you_mean(name, [f"{PROVISIONED}{known}" for known in table.models]) or "ask the model by its own name"
        )
        raise NotFound(f"no reservation {reservation!r:.100} is in force", hint=hint, where="model")
    target = find_target(resolver, table.models[reservation], asker=asker, request=request)
    return replace(target, reservation=reservation)


def find_target(resolver: Resolver, name: str, *, asker: str = "", request: str = "") -> Target:
    """`resolve` without a look at reservations."""
    try:
        if name.startswith(BASES):
            return resolver.find_base(name)
        if name.startswith(ARTIFACT):
            return resolver.find_digest(name.removeprefix(ARTIFACT))
        deployment = None if "@" in name else resolver.find_deployment(name.removeprefix("deployment:"))
        if deployment is not None:
            return _share_out(resolver, deployment, asker or request, request)
        selected = name if "@" in name else f"{name}@{DEFAULT_ALIAS}"
        return resolver.find_version(Ref.parse(selected, kind="model"))
    except (NotFound, InvalidInput) as error:
        known = {listing.id.removesuffix(f"@{DEFAULT_ALIAS}") for listing in resolver.list_models()}
        hint = did_you_mean(name, known) or error.hint
        if name.startswith(BASES) and not hint.startswith("did you"):
            hint += "; a base is served when a version stands on it, or a row of serve.engines names it"
        raise NotFound(f"no model {name!r:.100} is served here", hint=hint, where="model") from None


def _share_out(resolver: Resolver, deployment: Deployment, asker: str, request: str) -> Target:
    target = resolver.find_version(Ref.parse(choose_variant(deployment, asker), kind="model"))
    return replace(target, deployment=deployment.name, shadows=choose_shadows(deployment, request))
