"""The chain behind an answer: ledger row -> version -> approvals and evidence -> adapter -> run -> dataset -> pages.

Joins what the ledger, the registry's lineage and the data stage each know; every link is a digest or an id that can be
checked.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from espalier.core.errors import NotFound
from espalier.core.money import format_usd
from espalier.core.types import Artifact, LedgerEntry, Spec

if TYPE_CHECKING:
    from espalier.registry.lineage import Node
    from espalier.store.store import Store


class Link(Spec):
    """One thing in the chain; `depth` indents it under what it belongs to."""

    depth: int
    kind: str
    label: str
    id: str
    detail: str = ""


class RequestTrace(Spec):
    """The whole chain, top down."""

    request: str
    links: tuple[Link, ...]

    def to_text(self) -> str:
        """The chain as an indented list."""
        lines = []
        for link in self.links:
            id = link.id[:12] if len(link.id) == 64 else link.id
            words = [f"{link.kind:<9}", link.label, "" if id in link.label else id, link.detail]
            lines.append("  " * link.depth + "  ".join(word for word in words if word).rstrip())
        return "\n".join(lines)


def trace_request(store: Store, request_id: str, *, documents: int) -> RequestTrace:
    """The chain behind a request. Raises NotFound when the ledger does not know it."""
    rows = store.ledger.find(request_id.removeprefix("chatcmpl-"))
    if not rows:
        raise NotFound(f"the ledger has no request {request_id}", hint="an answer's id is its x-request-id header")
    row = next((row for row in rows if row.kind in ("settle", "usage")), rows[-1])
    links = [_describe_row(row)]
    if row.model.startswith("model:"):
        links += _trace_version(store, row.model, documents)
    else:
        links.append(Link(depth=1, kind="base", label=row.model, id="", detail="asked as it is: nothing was trained"))
    return RequestTrace(request=row.request, links=tuple(links))


def _describe_row(row: LedgerEntry) -> Link:
    used = f"{row.prompt_tokens}+{row.completion_tokens} tokens"
    detail = f"{used}, {format_usd(row.amount_nusd)}, {row.latency_ms} ms, key {row.key or 'none'}, {_time(row.at_ms)}"
    return Link(depth=0, kind="request", label=row.request, id=row.request, detail=detail)


def _trace_version(store: Store, ref: str, documents: int) -> Iterator[Link]:
    from espalier.registry.lineage import trace_model
    from espalier.registry.versions import get_version

    version = get_version(store, ref)
    yield Link(depth=1, kind="model", label=version.ref, id=version.ref, detail=version.status)
    yield Link(depth=2, kind="submitted", label=version.submitted_by, id="", detail=_time(version.created_ms))
    for approval in version.approvals:
        said = f"{_time(approval.at_ms)} {approval.comment}".strip()
        yield Link(depth=2, kind=approval.decision.lower(), label=approval.actor, id="", detail=said)
    tree = trace_model(store, ref, {"dataset": lambda artifact: _open_dataset(store, artifact, documents)})
    for child in tree.children:
        yield from _flatten(child, 2)


def _flatten(node: Node, depth: int) -> Iterator[Link]:
    yield Link(depth=depth, kind=node.kind, label=node.label, id=node.id, detail=_detail(node))
    for child in node.children:
        yield from _flatten(child, depth + 1)


def _detail(node: Node) -> str:
    if node.kind == "run":
        return f"by {node.detail.get('actor', '')}, {_time(int(node.detail.get('ended_ms') or 0))}"
    return node.detail.get("see", "") or node.detail.get("detail", "")


def _open_dataset(store: Store, artifact: Artifact, limit: int) -> Sequence[Node]:
    """The documents behind the train split, each with file, page and characters."""
    from itertools import islice

    from espalier.data.layout import read_documents
    from espalier.data.manifest import read_manifest
    from espalier.registry.lineage import Node
    from espalier.store.examples import read_examples

    folder = store.artifacts.materialise(artifact.digest)
    trained = [id for example in read_examples(folder, "train") for id in example.documents]
    manifest = read_manifest(folder)
    head = Node(
        kind="trained",
        id="",
        label=f"{len(trained)} documents from {len(manifest.sources)} files",
        detail={"detail": f"showing {min(limit, len(trained))}; --documents N shows more"},
    )
    shown = list(islice(trained, limit))
    pages = [_describe_document(document) for document in read_documents(folder, shown)] if shown else []
    return [head, *pages]


def _describe_document(document: Any) -> Node:
    from espalier.registry.lineage import Node

    span = document.span
    until = f"-{span.end}" if span.end else ""
    return Node(
        kind="page",
        id=span.blob,
        label=f"{span.uri}, page {span.page}, characters {span.start}{until}",
    )


def _time(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ms / 1000)) if at_ms else ""
