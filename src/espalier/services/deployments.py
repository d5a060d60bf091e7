"""Deployments: the names clients may ask for, what answers them, and how their requests are shared out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from espalier.core.errors import Conflict, InvalidInput
from espalier.core.operations import operation
from espalier.core.refs import Ref
from espalier.core.types import Canary, Deployment, Shadow, Spec, Variant
from espalier.gateway.route import Target
from espalier.services.deploymentpage import DeploymentView, ShadowView, describe_shares
from espalier.services.resolver import RegistryResolver

if TYPE_CHECKING:
    from espalier.services.context import Context
    from espalier.store.store import Store

_COPIES_LOOKED_AT = 2_000


class ListDeployments(Spec):
    """Whether to list every approved version too."""

    versions: bool = Field(False, description="also name each approved version, not only aliases and bases")


class ServedName(Spec):
    """A name clients may ask for, and what answers. Several versions behind one name are told with their shares."""

    model: str
    resolved: str
    base: str
    adapter: str


@operation("deployments.list", "GET /v1/deployments")
def list_all(context: Context, request: ListDeployments) -> list[ServedName]:
    """List what clients may ask for: deployments, aliases of approved versions, and bases.

    Example:
        espalier deployments list
    """
    resolver = RegistryResolver(context.store, context.config.config.serve)
    found = []
    for listing in resolver.list_models(versions=request.versions):
        deployment = None if ":" in listing.id or "@" in listing.id else resolver.find_deployment(listing.id)
        if deployment is not None:
            found.append(ServedName(model=listing.id, resolved=describe_shares(deployment), base="", adapter=""))
            continue
        target = _target_of(resolver, listing.id)
        found.append(ServedName(model=listing.id, resolved=target.model, base=target.base, adapter=target.adapter))
    return found


class NameDeployment(Spec):
    """Which deployment."""

    name: str = Field(description="what clients ask for, such as support")


@operation("deployments.show", "GET /v1/deployments/{name}", positional=("name",))
def show(context: Context, request: NameDeployment) -> DeploymentView:
    """Show who answers a deployment's requests, in which shares, and how it came to that.

    Example:
        espalier deployments show support
    """
    from espalier.registry.deployments import get_deployment, list_revisions

    found = get_deployment(context.store, request.name)
    revisions = list_revisions(context.store, request.name)
    shadows = tuple(_look_at_shadow(context.store, found.name, each.model) for each in found.shadows)
    return DeploymentView(deployment=found, shares=describe_shares(found), shadows=shadows, revisions=tuple(revisions))


class SplitDeployment(NameDeployment):
    """Who answers in which proportion."""

    variants: dict[str, float] = Field(
        description="version or alias = weight, such as support@v1=90 support@v2=10; a share is weight / sum of weights"
    )
    reason: str = Field("", description="kept with the revision and in the audit log")


@operation("deployments.split", "POST /v1/deployments/{name}/split", positional=("name",), role="approver")
def split(context: Context, request: SplitDeployment) -> Deployment:
    """Share the requests for a name among approved versions: an A/B test, or one version alone.

    One user (the request's `user` or `safety_identifier`) always gets the same version; without it each request is
    drawn anew. Versions are pinned as they are named now: an alias that moves later does not move the deployment.

    Example:
        espalier deployments split support --variants support@v1=90 --variants support@v2=10
    """
    from espalier.registry.deployments import change_deployment, find_deployment

    store = context.store
    before = find_deployment(store, request.name)
    _check_weights(request.variants)
    variants = tuple(Variant(model=_pin(store, ref), weight=weight) for ref, weight in request.variants.items())
    said: dict[str, Any] = {"variants": variants, "canary": None, "reason": request.reason}
    if before is not None:
        said["below"] = _steady(before)
    return change_deployment(store, request.name, actor=context.actor, action="split", before=before, **said)


class StartCanary(NameDeployment):
    """A candidate, how fast it may grow, and what takes it back."""

    candidate: str = Field(description="the version that is to take over, such as support@v3")
    steps_percent: tuple[float, ...] = Field((5.0, 25.0, 50.0, 100.0), description="its shares, one after another")
    step_s: float = Field(600.0, ge=0, description="a step lasts at least so long")
    min_requests: int = Field(20, ge=1, description="and until the candidate has answered so many in it")
    max_error_rate: float = Field(0.02, ge=0, lt=1, description="taken back when its errors are surely above this")
    max_latency_ratio: float = Field(
        1.5, gt=1, description="or when it is surely slower than so many times the others' p95"
    )
    reason: str = Field("", description="kept with the revision and in the audit log")


@operation("deployments.canary", "POST /v1/deployments/{name}/canary", positional=("name",), role="approver")
def canary(context: Context, request: StartCanary) -> Deployment:
    """Let a candidate take over step by step; it is rolled back by itself when it fails or is slow.

    Where there is no deployment of that name, it begins as the model's `production` alias stands.
    The server that answers watches: errors and latency of the candidate against those of the versions it is to replace,
    within the same step. Every step and a roll-back are revisions with their reason, in the audit log.

    Example:
        espalier deployments canary support --candidate support@v3 --steps-percent 5 --steps-percent 50 --step-s 300
    """
    from espalier.registry.deployments import change_deployment, find_deployment

    store, steps = context.store, request.steps_percent
    if not steps or any(not 0 < share <= 100 for share in steps) or list(steps) != sorted(set(steps)):
        raise InvalidInput(f"the steps are {list(steps)}", where="steps_percent", hint="growing shares, above 0 to 100")
    candidate = _pin(store, request.candidate)
    fields = {**request.model_dump(include=set(Canary.model_fields)), "candidate": candidate}
    with store.transaction():  # what is refused leaves no deployment behind
        before = find_deployment(store, request.name) or _begin(context, request.name)
        _check_candidate(before, candidate)
        return change_deployment(
            store, request.name, actor=context.actor, action="canary", before=before, canary=Canary(**fields),
            below=before.revision, reason=request.reason,
        )  # fmt: skip


class SetShadows(NameDeployment):
    """Who answers copies."""

    shadows: dict[str, float] = Field(
        default_factory=dict, description="version = share of the requests, 0 to 1; none ends all shadows"
    )


@operation("deployments.shadow", "POST /v1/deployments/{name}/shadow", positional=("name",), role="approver")
def shadow(context: Context, request: SetShadows) -> Deployment:
    """Have versions answer copies of a deployment's requests, unheard: what they say goes to no client.

    Their usage rows name the request they copied, whether the words were the same, tokens and latency; no key pays.

    Example:
        espalier deployments shadow support --shadows support@v4=0.2
    """
    from espalier.registry.deployments import change_deployment, get_deployment

    store, before = context.store, get_deployment(context.store, request.name)
    for ref, share in request.shadows.items():
        if not 0 < share <= 1:
            raise InvalidInput(
                f"{ref} is to answer {share:g} of the requests", where="shadows", hint="above 0, up to 1"
            )
    shadows = tuple(Shadow(model=_pin(store, ref), share=share) for ref, share in request.shadows.items())
    return change_deployment(
        store, request.name, actor=context.actor, action="shadow", before=before, shadows=shadows, reason=""
    )


class RollbackDeployment(NameDeployment):
    """Which deployment, and why."""

    reason: str = Field("", description="kept with the revision and in the audit log")


@operation("deployments.rollback", "POST /v1/deployments/{name}/rollback", positional=("name",), role="approver")
def rollback(context: Context, request: RollbackDeployment) -> Deployment:
    """Go back to who answered before the last change; a canary under way is taken back.

    Example:
        espalier deployments rollback support --reason "answers in the wrong language"
    """
    from espalier.registry.deployments import rollback_deployment

    return rollback_deployment(context.store, request.name, actor=context.actor, reason=request.reason)


class RemovedDeployment(Spec):
    """What is gone, and what its name means from now on."""

    name: str
    now: str


@operation("deployments.remove", "DELETE /v1/deployments/{name}", positional=("name",), role="approver")
def remove(context: Context, request: NameDeployment) -> RemovedDeployment:
    """Remove a deployment: its name means the model's `production` alias again, or nothing. Its history stays.

    Example:
        espalier deployments remove support
    """
    from espalier.registry.aliases import find_alias
    from espalier.registry.deployments import remove_deployment

    remove_deployment(context.store, request.name, actor=context.actor)
    alias = find_alias(context.store, request.name, "production")
    return RemovedDeployment(name=request.name, now=alias.ref if alias else "")


def _target_of(resolver: RegistryResolver, name: str) -> Target:
    if ":" in name:
        return resolver.find_base(name)
    return resolver.find_version(Ref.parse(name, kind="model"))


def _look_at_shadow(store: Store, name: str, model: str) -> ShadowView:
    rows = [
        row
        for row in store.ledger.list(model=model, kind="usage", limit=_COPIES_LOOKED_AT)
        if "shadow_of" in row.detail and row.detail.get("deployment") == name
    ]
    return ShadowView(
        model=model,
        copies=len(rows),
        same_words=sum(row.detail["shadow_of"]["same_words"] for row in rows),
        failed=sum(row.detail["finish"] == "error" for row in rows),
        latency_ms=round(sum(row.latency_ms for row in rows) / len(rows)) if rows else 0,
    )


def _begin(context: Context, name: str) -> Deployment:
    """A deployment of what the model's production alias names. Raises NotFound where there is neither."""
    from espalier.registry.aliases import find_alias
    from espalier.registry.deployments import change_deployment, get_deployment

    alias = find_alias(context.store, name, "production")
    if alias is None:
        return get_deployment(context.store, name)  # says that there is none, and what there is
    return change_deployment(
        context.store, name, actor=context.actor, action="split", before=None,
        variants=(Variant(model=alias.ref),), reason="as its alias production stood",
    )  # fmt: skip


def _check_weights(variants: dict[str, float]) -> None:
    if not variants:
        raise InvalidInput("no version is to answer", where="variants", hint="support@v1=90 support@v2=10")
    for ref, weight in variants.items():
        if not 0 < weight < float("inf"):
            raise InvalidInput(f"{ref} has the weight {weight:g}", where="variants", hint="a number above 0")


def _check_candidate(before: Deployment, candidate: str) -> None:
    """Raises Conflict where another candidate is on its way, or this one answers already."""
    if before.canary is not None:
        raise Conflict(
            f"{before.name} has a canary already, {before.canary.candidate}",
            hint=f"`espalier deployments rollback {before.name}` takes it back",
        )
    if candidate in {variant.model for variant in before.variants}:
        raise Conflict(
            f"{candidate} answers {before.name} already",
            hint=f"a candidate is a new version; `espalier deployments split {before.name}` changes this one's share",
        )


def _pin(store: Store, ref: str) -> str:
    """The version a ref means now. Raises NotFound, and InvalidInput for a base."""
    from espalier.registry.versions import get_version

    if ref.partition(":")[0] in ("builtin", "hf", "path"):
        raise InvalidInput(f"{ref} is a base", hint="name approved versions of a model, e.g. support@v1")
    return get_version(store, ref).ref


def _steady(before: Deployment) -> int:
    """The revision to go back to: a half-grown canary is not a state anyone wants again."""
    return before.below if before.canary is not None else before.revision
