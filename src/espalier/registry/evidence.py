"""What the store holds about a version, collected for the policy and the card; bytes are checked as they are read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.types import EvalReport, ModelVersion
from espalier.registry.policy import Evidence
from espalier.registry.versions import read_adapter_facts
from espalier.store.store import Store

REPORT_FILE = "report.json"
MANIFEST_FILE = "manifest.json"


def collect_evidence(store: Store, version: ModelVersion) -> Evidence:
    """Everything the policy looks at. Raises DigestMismatch when stored bytes were changed."""
    adapter_base = ""
    if version.adapter:
        adapter_base = read_adapter_facts(store, store.artifacts.get(version.adapter)).base_digest
    return Evidence(
        version=version,
        reports=read_reports(store, version.reports),
        has_dataset=bool(version.dataset) and not store.artifacts.check(version.dataset),
        adapter_base_digest=adapter_base,
    )


def read_reports(store: Store, digests: Sequence[str]) -> list[EvalReport]:
    """The evaluation reports behind artifact digests, their bytes checked. Raises NotFound, InvalidInput."""
    reports = []
    for digest in digests:
        artifact = store.artifacts.get(digest)
        try:
            data = store.blobs.read(artifact.file(REPORT_FILE).sha256)
            reports.append(EvalReport.model_validate_json(data))
        except KeyError:
            raise NotFound(f"artifact {digest[:12]} holds no {REPORT_FILE}", hint="evaluate again") from None
        except ValueError as error:
            raise InvalidInput(f"artifact {digest[:12]} is no evaluation report: {error}") from None
    return reports


def read_dataset_facts(store: Store, digest: str) -> dict[str, Any]:
    """The manifest of a dataset version as JSON; empty for a dataset that has none. Raises NotFound."""
    artifact = store.artifacts.get(digest)
    try:
        facts: dict[str, Any] = json.loads(store.blobs.read(artifact.file(MANIFEST_FILE).sha256))
    except KeyError:
        return {}
    return facts
