"""Lineage in both directions, over the edges between artifacts and the runs that made them.

    up      model -> adapter -> run -> dataset -> its sources        "what is this made of?"
    down    source or dataset -> ... -> adapter -> models            "what was made of this?"

What is inside an artifact (the files and pages of a dataset) the registry does not know: a service gives an `Expand`
for each kind of artifact that can be opened further.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from espalier.core.errors import NotFound
from espalier.core.types import Artifact, ModelVersion, Run, Spec
from espalier.registry.versions import KIND, get_version, list_models, list_versions
from espalier.store.store import Store


class Node(Spec):
    """One thing in a lineage tree. `role` is what it was to the node above; a node met before has no children again."""

    kind: str  # model | base | adapter | run | dataset | source ...
    id: str
    label: str
    role: str = ""
    detail: dict[str, str] = {}
    children: tuple[Node, ...] = ()

    def walk(self) -> Iterator[Node]:
        """The node and all below it, top down."""
        yield self
        for child in self.children:
            yield from child.walk()

    def find(self, kind: str) -> list[Node]:
        """Every node of a kind, top down."""
        return [node for node in self.walk() if node.kind == kind]


Expand = Callable[[Artifact], Sequence[Node]]


def trace_model(store: Store, ref: str, expand: Mapping[str, Expand] | None = None) -> Node:
    """What a model version is made of. `expand` opens artifacts by their kind. Raises NotFound."""
    version = get_version(store, ref)
    walk = _Walk(store, expand or {})
    base = Node(kind="base", id=version.base_digest, label=version.base, role="base")
    parts = [
        ("adapter", version.adapter),
        ("base", version.made_base),
        ("dataset", version.dataset),
        ("prompt", version.prompt),
    ]
    parts += [("report", digest) for digest in version.reports]
    known = [walk.climb(digest, role) for role, digest in parts if digest]
    return _describe_model(version).model_copy(update={"children": (base, *known)})


def trace_up(store: Store, digest: str, expand: Mapping[str, Expand] | None = None) -> Node:
    """What an artifact was made from, run by run. Raises NotFound for an artifact the store does not hold."""
    store.artifacts.get(digest)
    return _Walk(store, expand or {}).climb(digest, "")


def trace_down(store: Store, digest: str) -> Node:
    """Everything made from an artifact, down to the model versions that hold it. Raises NotFound."""
    store.artifacts.get(digest)
    return _Walk(store, {}).descend(digest, "")


class _Walk:
    """One traversal: an artifact reached twice is opened once."""

    def __init__(self, store: Store, expand: Mapping[str, Expand]) -> None:
        self._store = store
        self._expand = expand
        self._seen: set[str] = set()
        self._models: dict[str, list[tuple[str, ModelVersion]]] | None = None

    def climb(self, digest: str, role: str) -> Node:
        artifact = self._store.artifacts.find(digest)
        if artifact is None:
            return Node(kind="missing", id=digest, label=f"{digest[:12]} is not in the store", role=role)
        node = _describe_artifact(artifact, role)
        if digest in self._seen:
            return node.model_copy(update={"detail": node.detail | {"see": "above"}})
        self._seen.add(digest)
        parents = tuple(self.climb(edge.parent, edge.role) for edge in self._store.artifacts.parents(digest))
        run = self._find_run(artifact.made_by)
        made_by = (_describe_run(run, parents),) if run else parents
        inside = tuple(self._expand[artifact.kind](artifact)) if artifact.kind in self._expand else ()
        return node.model_copy(update={"children": (*inside, *made_by)})

    def descend(self, digest: str, role: str) -> Node:
        artifact = self._store.artifacts.get(digest)
        node = _describe_artifact(artifact, role)
        if digest in self._seen:
            return node.model_copy(update={"detail": node.detail | {"see": "above"}})
        self._seen.add(digest)
        made = tuple(self.descend(edge.child, edge.role) for edge in self._store.artifacts.children(digest))
        models = tuple(_describe_model(version, part) for part, version in self._holders().get(digest, []))
        return node.model_copy(update={"children": (*models, *made)})

    def _holders(self) -> Mapping[str, list[tuple[str, ModelVersion]]]:
        """digest -> (as what, by which version) over the whole registry; read once a traversal."""
        if self._models is None:
            self._models = {}
            for newest in list_models(self._store):
                for version in list_versions(self._store, newest.name):
                    for part, digest in _parts_of(version):
                        self._models.setdefault(digest, []).append((part, version))
        return self._models

    def _find_run(self, run_id: str) -> Run | None:
        if not run_id:
            return None
        try:
            return self._store.runs.get(run_id)
        except NotFound:
            return None


def _parts_of(version: ModelVersion) -> list[tuple[str, str]]:
    named = [("adapter", version.adapter), ("dataset", version.dataset), ("prompt", version.prompt)]
    return [(part, digest) for part, digest in named if digest] + [("report", digest) for digest in version.reports]


def _describe_model(version: ModelVersion, role: str = "") -> Node:
    detail = {"status": version.status, "submitted_by": version.submitted_by}
    if version.approvals:
        detail["decided_by"] = version.approvals[0].actor
    return Node(kind=KIND, id=version.ref, label=version.ref, role=role, detail=detail)


def _describe_artifact(artifact: Artifact, role: str) -> Node:
    size_bytes = sum(file.size_bytes for file in artifact.files)
    detail = {"files": str(len(artifact.files)), "size_bytes": str(size_bytes), **artifact.meta}
    label = artifact.meta.get("name", f"{artifact.kind} {artifact.digest[:12]}")
    return Node(kind=artifact.kind, id=artifact.digest, label=label, role=role, detail=detail)


def _describe_run(run: Run, inputs: tuple[Node, ...]) -> Node:
    detail = {"status": run.status, "actor": run.actor, "ended_ms": str(run.ended_ms)}
    return Node(kind="run", id=run.id, label=run.step, role="made by", detail=detail, children=inputs)
