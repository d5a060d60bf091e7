"""Models: versions with their evidence, approvals by a second pair of eyes, aliases and the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from espalier.core.operations import operation
from espalier.core.refs import Ref
from espalier.core.types import EvalReport, ModelVersion, Spec

if TYPE_CHECKING:
    from espalier.registry.aliases import AliasMove
    from espalier.services.context import Context


class ListModels(Spec):
    """Which versions to list."""

    name: str = Field("", description="all versions of this model; empty = the newest version of each")


@operation("models.list", "GET /v1/registry/models")
def list_all(context: Context, request: ListModels) -> list[ModelVersion]:
    """List models, or every version of one."""
    from espalier.registry.versions import list_models, list_versions

    store = context.store
    return list(list_versions(store, request.name) if request.name else list_models(store))


class NameModel(Spec):
    """Which version."""

    ref: str = Field(description="model:NAME@vN, NAME@alias, or just NAME for its newest version")


class ClauseView(Spec):
    """One demand of the policy, met or not for whoever asks."""

    name: str
    ok: bool
    why: str


class ModelView(Spec):
    """A version, the aliases that name it, its evidence, and the policy's clauses as they stand for this identity."""

    version: ModelVersion
    aliases: tuple[str, ...]
    clauses: tuple[ClauseView, ...]
    reports: tuple[EvalReport, ...]


@operation("models.show", "GET /v1/registry/models/show", positional=("ref",))
def show(context: Context, request: NameModel) -> ModelView:
    """Show a model version: what it is made of, how it scored, what the policy says, who approved it.

    Example:
        espalier models show support@production
    """
    from espalier.registry.aliases import list_aliases
    from espalier.registry.approvals import review
    from espalier.registry.evidence import read_reports
    from espalier.registry.versions import get_version

    store = context.store
    version = get_version(store, request.ref)
    aliases = [move.alias for move in list_aliases(store, version.name) if move.version == version.version]
    clauses = review(store, context.config.config.policy, version, context.actor)
    return ModelView(
        version=version,
        aliases=tuple(aliases),
        clauses=tuple(ClauseView(**clause.model_dump()) for clause in clauses),
        reports=tuple(read_reports(store, version.reports)),
    )


class DecideModel(NameModel):
    """Which version, and what to say about it."""

    comment: str = Field("", description="kept with the decision")


@operation("models.approve", "POST /v1/registry/models/approve", positional=("ref",), role="approver")
def approve(context: Context, request: DecideModel) -> ModelVersion:
    """Approve a pending version, as somebody other than who submitted it.

    Example:
        espalier models approve support@v1 --as grace --comment "read 20 answers"
    """
    from espalier.registry.approvals import approve as decide

    policy = context.config.config.policy
    return decide(context.store, policy, request.ref, actor=context.actor, comment=request.comment)


@operation("models.reject", "POST /v1/registry/models/reject", positional=("ref",), role="approver")
def reject(context: Context, request: DecideModel) -> ModelVersion:
    """Reject a pending version, with the reason in --comment."""
    from espalier.registry.approvals import reject as decide

    return decide(context.store, request.ref, actor=context.actor, comment=request.comment)


class PromoteModel(NameModel):
    """Which version gets which alias."""

    alias: str = Field("production", description="the name clients use after @")


class AliasView(Spec):
    """Where an alias points now."""

    ref: str
    alias: str
    action: str
    actor: str


@operation("models.promote", "POST /v1/registry/models/promote", positional=("ref",), role="approver")
def promote(context: Context, request: PromoteModel) -> AliasView:
    """Point an alias at an approved version; clients that ask for it get that version from their next request on.

    Example:
        espalier models promote support@v2 --alias production
    """
    from espalier.registry.aliases import promote as move

    return _view(move(context.store, request.ref, request.alias, actor=context.actor))


class RollBackModel(Spec):
    """Which alias of which model goes back."""

    name: str = Field(description="the model's name")
    alias: str = Field("production", description="the alias that goes back to what it named before")


@operation("models.rollback", "POST /v1/registry/models/rollback", positional=("name",), role="approver")
def roll_back(context: Context, request: RollBackModel) -> AliasView:
    """Point an alias back at the version it named before."""
    from espalier.registry.aliases import rollback

    name = Ref.parse(request.name, kind="model").name
    return _view(rollback(context.store, name, request.alias, actor=context.actor))


class CardView(Spec):
    """A model card."""

    ref: str
    markdown: str


@operation("models.card", "GET /v1/registry/models/card", positional=("ref",))
def card(context: Context, request: NameModel) -> CardView:
    """Write the model card: what it is, its data, its scores, who approved it, its limits."""
    from espalier.registry.approvals import review
    from espalier.registry.card import make_card
    from espalier.registry.versions import get_version

    store = context.store
    version = get_version(store, request.ref)
    clauses = review(store, context.config.config.policy, version, context.actor)
    return CardView(ref=version.ref, markdown=make_card(store, request.ref, clauses))


class ExportModel(NameModel):
    """Which version goes where."""

    folder: str = Field(description="new folder for the PEFT adapter, its card and its digests")


@operation("models.export", "POST /v1/registry/models/export", positional=("ref", "folder"), role="admin")
def export(context: Context, request: ExportModel) -> ModelVersion:
    """Copy a version's adapter out as a standard PEFT folder with its card.

    Example:
        espalier models export support@production ./support-adapter
    """
    from espalier.registry.export import export_model

    folder = context.place(request.folder)
    return export_model(context.store, request.ref, folder, actor=context.actor)


def _view(move: AliasMove) -> AliasView:
    return AliasView(ref=move.ref, alias=move.alias, action=move.action, actor=move.actor)
