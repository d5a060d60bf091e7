"""Model versions: registered once, with everything they stand on, and never changed.

A version is an immutable record. What changes is its status, a pointer from PendingManualApproval to Approved or
Rejected (approvals.py), and which aliases name it (aliases.py); reading a version puts record and status together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pydantic import ValidationError

from espalier.core.errors import Conflict, DigestMismatch, InvalidInput, NotFound, did_you_mean
from espalier.core.ids import digest_of, now_ms
from espalier.core.refs import Ref
from espalier.core.types import Approval, Artifact, ModelVersion, Spec
from espalier.registry.fidelity import find_passed, is_quantised, require_passed
from espalier.registry.fidelity import pointer_name as fidelity_pointer
from espalier.store.store import Store

KIND = "model"
APPROVAL = "approval"
PENDING = "PendingManualApproval"
ADAPTER_FACTS = "espalier.json"  # beside the PEFT files of an adapter
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Registration(Spec):
    """What a version is made of; digests name artifacts of the store. An empty `adapter` is the base itself."""

    name: str
    base: str
    base_digest: str
    adapter: str = ""
    prompt: str = ""
    dataset: str = ""
    reports: tuple[str, ...] = ()
    run: str = ""
    description: str = ""


class AdapterFacts(Spec):
    """What an adapter says of itself; only what the registry reads."""

    model_config = {"extra": "ignore"}

    base: str = ""
    base_digest: str


def register(store: Store, registration: Registration, *, actor: str) -> ModelVersion:
    """The next version of `registration.name`, pending approval; the version made of the very same things, else.

    Raises NotFound for a digest the store does not hold, InvalidInput for one of another kind, DigestMismatch for an
    adapter that was trained on another base, GateFailed for a quantised base that did not pass its gate.
    """
    name = Ref.parse(registration.name, kind=KIND).name
    who = check_actor(actor)
    _check_parts(store, registration)
    same = pointer_name(name, f"sha256:{_content_digest(registration)}")
    known = store.records.find_pointer(same)
    if known is None:
        try:
            return _add_version(store, name, registration, same, who)
        except Conflict:  # the same content was registered just now
            known = store.records.get_pointer(same)
    return get_version(store, f"{KIND}:{name}@{known.target}")


def get_version(store: Store, ref: str) -> ModelVersion:
    """`model:name@v3`, an alias, a digest, or the latest, with its status and approvals. Raises NotFound."""
    parsed = Ref.parse(ref, kind=KIND)
    selector = parsed.selector
    if parsed.version is None:
        pointer = store.records.find_pointer(pointer_name(parsed.name, selector))
        if pointer is None:
            raise _missing(store, parsed)
        selector = pointer.target
    return _read_version(store, f"{parsed.name}@{selector}")


def list_versions(store: Store, name: str) -> Sequence[ModelVersion]:
    """Every version of a model, the newest first. Raises NotFound."""
    newest = get_version(store, f"{KIND}:{name}").version
    return [_read_version(store, f"{name}@v{number}") for number in range(newest, 0, -1)]


def list_models(store: Store) -> Sequence[ModelVersion]:
    """The newest version of every model, by name."""
    heads = [pointer for pointer in store.records.list_pointers(f"{KIND}:") if pointer.name.endswith("@latest")]
    return [_read_version(store, f"{Ref.parse(head.name).name}@{head.target}") for head in heads]


def read_adapter_facts(store: Store, adapter: Artifact) -> AdapterFacts:
    """What the adapter says it was trained on. Raises InvalidInput when it says nothing."""
    try:
        return AdapterFacts.model_validate_json(store.blobs.read(adapter.file(ADAPTER_FACTS).sha256))
    except (KeyError, ValidationError):
        raise InvalidInput(
            f"adapter {adapter.digest[:12]} does not say which base it was trained on",
            hint=f"an adapter made by `espalier train` holds {ADAPTER_FACTS}",
        ) from None


def pointer_name(name: str, selector: str) -> str:
    """The pointer that says which version `selector` means."""
    return f"{KIND}:{name}@{selector}"


def status_pointer(version: ModelVersion) -> str:
    """The pointer whose target is the status of the version."""
    return f"status:{version.ref}"


def record_id(version: ModelVersion) -> str:
    """The id of everything recorded about a version: `support@v3`."""
    return f"{version.name}@v{version.version}"


def check_actor(actor: str) -> str:
    """The actor's name without outer spaces. Raises InvalidInput for none: every act has someone who answers for it."""
    if not actor.strip():
        raise InvalidInput("nobody is named as the one who does this", hint="set `actor` or ESPALIER_ACTOR")
    return actor.strip()


def _add_version(store: Store, name: str, registration: Registration, same: str, actor: str) -> ModelVersion:
    with store.transaction():
        number = store.records.next_version(KIND, name)
        fields = registration.model_dump() | {"name": name}
        version = ModelVersion(**fields, version=number, submitted_by=actor, created_ms=now_ms())
        store.records.put(KIND, record_id(version), version)
        store.records.set_pointer(same, f"v{number}", expect=None, actor=actor)
        store.records.set_pointer(status_pointer(version), PENDING, expect=None, actor=actor)
        store.records.set_pointer(pointer_name(name, "latest"), f"v{number}", actor=actor)
        passed = find_passed(store, version.made_base, version.reports) if version.made_base else ""
        if passed and is_quantised(store, version.made_base):
            store.records.set_pointer(fidelity_pointer(version.made_base), passed, actor=actor)
        store.audit.append(actor, "models.register", version.ref, registration.model_dump(mode="json"))
    return version


def _read_version(store: Store, id: str) -> ModelVersion:
    version = store.records.get(KIND, id, ModelVersion)
    status = store.records.get_pointer(status_pointer(version)).target
    if status == PENDING:
        return version
    approval = store.records.get(APPROVAL, id, Approval)
    return ModelVersion.model_validate(version.model_dump() | {"status": status, "approvals": (approval,)})


def _check_parts(store: Store, registration: Registration) -> None:
    if not _SHA256.fullmatch(registration.base_digest):
        raise InvalidInput(f"base {registration.base} has no digest", hint="a version names its base by sha256")
    parts: list[tuple[str, Iterable[str]]] = [
        ("adapter", (registration.adapter,)), ("base", (_made_base(registration),)), ("prompt", (registration.prompt,)),
        ("dataset", (registration.dataset,)), ("report", registration.reports),
    ]  # fmt: skip
    for kind, digests in parts:
        for digest in filter(None, digests):
            found = store.artifacts.get(digest)
            if found.kind != kind:
                raise InvalidInput(f"artifact {digest[:12]} is a {found.kind}, not a {kind}")
    if made := _made_base(registration):
        require_passed(store, made, registration.reports)
    if registration.adapter:
        facts = read_adapter_facts(store, store.artifacts.get(registration.adapter))
        if facts.base_digest != registration.base_digest:
            raise DigestMismatch(
                f"adapter {registration.adapter[:12]} was trained on base {facts.base_digest[:12]}, "
                f"not on {registration.base} ({registration.base_digest[:12]})",
                hint="register it with its own base, or train it again on this one",
            )


def _made_base(registration: Registration) -> str:
    scheme, _, digest = registration.base.partition(":")
    return digest if scheme == "artifact" else ""


def _content_digest(registration: Registration) -> str:
    # The run and the words about it are not what the model is: the same parts from a repeated run are the same version.
    return digest_of(registration.model_dump(mode="json", exclude={"run", "description"}))


def _missing(store: Store, ref: Ref) -> NotFound:
    prefix = f"{KIND}:{ref.name}@"
    names = [pointer.name.removeprefix(prefix) for pointer in store.records.list_pointers(prefix)]
    aliases = [name for name in names if not name.startswith("sha256:")]
    if aliases:
        return NotFound(f"model {ref.name} has no {ref.selector!r}", hint=did_you_mean(ref.selector, aliases))
    models = [version.name for version in list_models(store)]
    return NotFound(
        f"no model {ref.name}", hint=did_you_mean(ref.name, models) or "register one: `espalier run RECIPE`"
    )
