"""How a deployment reads: who answers, in which shares, what its shadows do, and how it came to that.

Knows what is shown, not where it is kept.
"""

from __future__ import annotations

import time

from espalier.core.types import Canary, Deployment, Spec


class ShadowView(Spec):
    """What a shadow did with its newest copies."""

    model: str
    copies: int
    same_words: int
    failed: int
    latency_ms: int  # mean


class DeploymentView(Spec):
    """A deployment as it is, what its shadows do, and every revision it went through, the newest first."""

    deployment: Deployment
    shares: str
    shadows: tuple[ShadowView, ...]
    revisions: tuple[Deployment, ...]

    def to_text(self) -> str:
        """What is in force, then every revision on a line."""
        now = self.deployment
        lines = [f"{now.name}, revision {now.revision}: {now.action} by {now.actor}, {_time(now.at_ms)}"]
        lines += [f"  {share}" for share in self.shares.split(", ")]
        if now.canary is not None:
            lines.append(f"  {_describe_canary(now.canary)}")
        asked = {shadow.model: shadow.share for shadow in now.shadows}
        lines += [f"  {_describe_shadow(shadow, asked.get(shadow.model, 0.0))}" for shadow in self.shadows]
        rows = [(f"{each.revision}", _time(each.at_ms), each.action, each.actor, describe_shares(each), each.reason)
                for each in self.revisions]  # fmt: skip
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
        table = ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, "", "revisions", *(f"  {row}" for row in table)])


def describe_shares(deployment: Deployment) -> str:
    """`support@v1 90%, support@v2 10%`."""
    rest = 1.0 - (deployment.canary.share if deployment.canary else 0.0)
    total = sum(variant.weight for variant in deployment.variants)
    shares = {variant.model: rest * variant.weight / total for variant in deployment.variants}
    if deployment.canary is not None:
        shares[deployment.canary.candidate] = deployment.canary.share
    return ", ".join(f"{model.removeprefix('model:')} {100 * share:.3g}%" for model, share in shares.items())


def _describe_canary(canary: Canary) -> str:
    steps = " -> ".join(
        f"[{share:g}%]" if number == canary.step else f"{share:g}%" for number, share in enumerate(canary.steps_percent)
    )
    return (
        f"canary {canary.candidate.removeprefix('model:')}: {steps}; a step lasts {canary.step_s:g} s and "
        f"{canary.min_requests} requests; taken back above {100 * canary.max_error_rate:g}% errors or "
        f"{canary.max_latency_ratio:g} times the others' latency"
    )


def _describe_shadow(shadow: ShadowView, share: float) -> str:
    told = f"shadow {shadow.model.removeprefix('model:')}: copies of {100 * share:.3g}%"
    if not shadow.copies:
        return f"{told}, none answered yet"
    return (
        f"{told}, {shadow.copies} answered, {shadow.same_words} in the same words, {shadow.failed} failed, "
        f"{shadow.latency_ms} ms"
    )


def _time(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ms / 1000))
