"""Which variant of a deployment answers a request. Knows no store and no model.

An asker always lands at the same place between 0 and 1, so that one user keeps one variant, and a canary that grows
takes users over without ever giving one back.
"""

from __future__ import annotations

from hashlib import sha256

from espalier.core.types import Deployment


def choose_variant(deployment: Deployment, asker: str) -> str:
    """The version that answers `asker`."""
    place = _place(deployment.name, asker)
    canary = deployment.canary
    if canary is not None:
        if place < canary.share:
            return canary.candidate
        place = _place(f"{deployment.name}/others", asker)
    total = sum(variant.weight for variant in deployment.variants)
    reached = 0.0
    for variant in deployment.variants:
        reached += variant.weight / total
        if place < reached:
            return variant.model
    return deployment.variants[-1].model


def choose_shadows(deployment: Deployment, request: str) -> tuple[str, ...]:
    """The versions that answer a copy of `request`."""
    return tuple(
        shadow.model
        for shadow in deployment.shadows
        if _place(f"{deployment.name}/shadow/{shadow.model}", request) < shadow.share
    )


def _place(salt: str, asker: str) -> float:
    """Evenly spread over [0, 1), the same for the same words on every machine."""
    return int.from_bytes(sha256(f"{salt}\0{asker}".encode()).digest()[:7], "big") / (1 << 56)
