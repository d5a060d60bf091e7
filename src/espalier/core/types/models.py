"""`ModelVersion`: what the registry holds, and the approvals on it."""

from __future__ import annotations

from typing import Literal

from espalier.core.types.spec import Spec

ApprovalStatus = Literal["PendingManualApproval", "Approved", "Rejected"]


class Approval(Spec):
    """One person's word on one model version."""

    actor: str
    decision: Literal["Approved", "Rejected"]
    comment: str = ""
    at_ms: int


class ModelVersion(Spec):
    """A base plus (usually) an adapter, frozen by digest, with the evidence it was registered on.

    The status names are SageMaker Model Registry's own.
    """

    name: str
    version: int
    base: str  # "builtin:seedling", "hf:OWNER/NAME", "path:DIR", "artifact:DIGEST" for one tuned in full here
    base_digest: str
    adapter: str = ""  # artifact digest; empty = the base itself
    prompt: str = ""  # artifact digest of the prompt version it was tuned for
    dataset: str = ""  # artifact digest
    reports: tuple[str, ...] = ()  # artifact digests of EvalReports
    run: str = ""  # the run that made it
    status: ApprovalStatus = "PendingManualApproval"
    approvals: tuple[Approval, ...] = ()
    submitted_by: str
    created_ms: int
    description: str = ""

    @property
    def made_base(self) -> str:
        """The artifact digest of a base that was made here, empty for one that came from elsewhere."""
        return self.base.removeprefix("artifact:") if self.base.startswith("artifact:") else ""

    @property
    def ref(self) -> str:
        return f"model:{self.name}@v{self.version}"
