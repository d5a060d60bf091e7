"""Quantised bases in the registry: none without the evidence that it passed its gate against its original.

A base in the store that says it is quantised needs a report about itself whose verdict passed. The first registration
that brings one points the base at it; whoever serves asks here. Bytes are checked as they are read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from espalier.core.errors import GateFailed
from espalier.core.types import Artifact
from espalier.nn.locate import QUANTISED

if TYPE_CHECKING:
    from espalier.store.store import Store

REPORT_FILE = "report.json"
VERDICT_FILE = "verdict.json"


def is_quantised(store: Store, base: str) -> bool:
    """Whether the artifact `base` is one. Raises NotFound."""
    return bool(_read(store, store.artifacts.get(base), "config.json").get(QUANTISED))


def find_passed(store: Store, base: str, reports: Sequence[str]) -> str:
    """The digest of the first of `reports` that says the artifact `base` passed its gate, or an empty string."""
    for digest in reports:
        artifact = store.artifacts.get(digest)
        report, verdict = _read(store, artifact, REPORT_FILE), _read(store, artifact, VERDICT_FILE)
        about = {report.get("subject"), verdict.get("subject")}
        if verdict.get("passed") is True and verdict.get("clauses") and about == {f"artifact:{base}"}:
            return digest
    return ""


def require_passed(store: Store, base: str, reports: Sequence[str] = ()) -> None:
    """Raise GateFailed for a quantised base that neither `reports` nor the registry know to have passed its gate."""
    if not is_quantised(store, base):
        return
    known = store.records.find_pointer(pointer_name(base))
    if not find_passed(store, base, [*reports, *([known.target] if known else [])]):
        raise GateFailed(
            f"base {base[:12]} is quantised, and no report says that it passed its gate against its original",
            hint="`espalier models quantise` measures it and registers what passes",
        )


def pointer_name(base: str) -> str:
    """The pointer from a quantised base to the report that let it serve."""
    return f"fidelity:{base}"


def _read(store: Store, artifact: Artifact, name: str) -> dict[str, Any]:
    try:
        found = json.loads(store.blobs.read(artifact.file(name).sha256))
    except (KeyError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
