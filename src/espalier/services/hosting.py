"""What a running server has loaded: bases, the adapters on them, their memory, how busy they are; load and unload."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from pydantic import Field

from espalier.core.errors import InvalidInput, NotFound, Unavailable, from_json
from espalier.core.operations import operation
from espalier.core.ports import EngineLoad, Replicated
from espalier.core.types import Spec
from espalier.services.ownserver import no_server, server_url

if TYPE_CHECKING:
    from espalier.serve.residency import Resident
    from espalier.services.context import Context
    from espalier.services.pool import ModelPool
    from espalier.services.seat import Seat

_TIMEOUT_S = 600
_LOAN_MS = 600_000
_DIGEST = re.compile(r"[0-9a-f]{8,64}")


class LoadedAdapter(Spec):
    """An adapter on a loaded base."""

    digest: str
    state: str
    memory_bytes: int
    requests: int  # that need it now
    idle_s: float


class LoadedEngine(Spec):
    """A base that is loaded, being loaded or on its way out."""

    base: str
    state: str
    memory_bytes: int
    requests: int  # that need it now
    idle_s: float
    running: int = 0  # of those, how many have a slot
    waiting: int = 0
    slots: int = 0
    queue_s: float = 0.0
    tokens_in_flight: int = 0
    replicas: int = 1
    adapters: tuple[LoadedAdapter, ...] = ()


class ListEngines(Spec):
    """Nothing to say."""


class NameLoaded(Spec):
    """A base, or an adapter on it."""

    base: str = Field(description="as deployments list names it, such as builtin:seedling")
    adapter: str = Field(
        "",
        description="an adapter: its digest, the first of its figures, or a version that has it, such as support@v3; "
        "empty = the base itself, which goes with all of its adapters",
    )


@operation("deployments.engines", "GET /v1/engines")
def engines(context: Context, request: ListEngines) -> list[LoadedEngine]:
    """List what the running server has loaded, how much memory it takes and how busy it is.

    With --json, the adapters on each base too.

    Example:
        espalier deployments engines
    """
    if context.hosting is None:
        return [LoadedEngine.model_validate(row) for row in _ask_server(context, "GET", "/v1/engines")]
    return [_describe(resident) for resident in context.hosting.list_bases()]


@operation("deployments.load", "POST /v1/engines/load", positional=("base",), role="approver")
def load(context: Context, request: NameLoaded) -> LoadedEngine | None:
    """Load a base, or an adapter on it, before anyone asks; returns once it answers.

    It changes the server's own process: ask that, by --server or ESPALIER_API_URL, with a key of the role approver.

    Example:
        espalier deployments load builtin:seedling --server http://127.0.0.1:8321
    """
    hosting = _hosting(context)
    hosting.load(request.base, _find_adapter(context, request.adapter))
    return next((_describe(resident) for resident in hosting.list_bases() if resident.name == request.base), None)


@operation("deployments.unload", "POST /v1/engines/unload", positional=("base",), role="approver")
def unload(context: Context, request: NameLoaded) -> list[LoadedEngine]:
    """Let a base, or one adapter on it, go once the answers under way have ended; returns what is still loaded.

    Whoever asks for it afterwards has it loaded anew. It changes the server's own process: ask that, by --server or
    ESPALIER_API_URL, with a key of the role approver.

    Example:
        espalier deployments unload builtin:seedling --server http://127.0.0.1:8321
    """
    hosting = _hosting(context)
    hosting.unload(request.base, _find_adapter(context, request.adapter))
    return [_describe(resident) for resident in hosting.list_bases()]


def _hosting(context: Context) -> ModelPool:
    if context.hosting is None:
        raise Unavailable(
            "engines are in the server's process, not in this one",
            hint=f"say --server {server_url(context.config.config.serve)} and set ESPALIER_API_KEY to a key of an "
            "approver (`espalier keys create --role approver`)",
        )
    return context.hosting


def _find_adapter(context: Context, word: str) -> str:
    """The digest that is meant. Raises NotFound, InvalidInput."""
    from espalier.registry.versions import get_version, list_models, list_versions

    if not word or re.fullmatch(r"[0-9a-f]{64}", word):
        return word
    if not _DIGEST.fullmatch(word):
        version = get_version(context.store, word)
        if not version.adapter:
            raise InvalidInput(f"{version.ref} has no adapter", where="adapter", hint="leave --adapter out")
        return version.adapter
    names = [model.name for model in list_models(context.store)]
    digests = {version.adapter for name in names for version in list_versions(context.store, name)}
    found = sorted(digest for digest in digests if digest.startswith(word))
    if len(found) != 1:
        said = f"the adapters of {len(found)} versions begin" if found else "no version's adapter begins"
        raise NotFound(f"{said} with {word}", where="adapter", hint="`espalier models show NAME@vN` tells a digest")
    return found[0]


def _describe(resident: Resident[Seat]) -> LoadedEngine:
    known: dict[str, Any] = {
        "base": resident.name,
        "state": resident.state,
        "memory_bytes": resident.size_bytes,
        "requests": resident.pins,
        "idle_s": round(resident.idle_s, 1),
    }
    seat = resident.thing
    if seat is None:
        return LoadedEngine.model_validate(known)
    try:
        load = seat.engine.load()
    except Unavailable:  # the others are told all the same
        known["state"], load = "unreachable", EngineLoad()
    adapters = tuple(
        LoadedAdapter(
            digest=each.name,
            state=each.state,
            memory_bytes=each.size_bytes,
            requests=each.pins,
            idle_s=round(each.idle_s, 1),
        )
        for each in seat.adapters.residents()
    )
    replicas = seat.engine.count_replicas() if isinstance(seat.engine, Replicated) else 1
    return LoadedEngine(
        **known,
        running=load.running,
        waiting=load.waiting,
        slots=load.slots,
        queue_s=round(load.queue_s, 3),
        tokens_in_flight=load.tokens_in_flight,
        replicas=replicas,
        adapters=adapters,
    )


def _ask_server(context: Context, method: str, path: str) -> Any:
    """What the server of this workspace answers, asked with a key made for this one question."""
    from espalier.gateway.keys import KeyRing

    serve = context.config.config.serve
    ring = KeyRing(context.store)
    loan = ring.lend(context.actor, _LOAN_MS, lender=context.principal.key)
    headers = {"Authorization": f"Bearer {loan.secret}"}
    asked = urllib.request.Request(f"{server_url(serve)}{path}", headers=headers, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=_TIMEOUT_S) as reply:
            return json.loads(reply.read())
    except urllib.error.HTTPError as error:
        raise from_json(json.loads(error.read())["error"]) from None
    except urllib.error.URLError as error:
        raise no_server(serve, error.reason) from None
    finally:
        ring.revoke(loan.key.id, actor=context.actor)
