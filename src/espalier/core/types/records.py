"""Small immutable records that more than one stage reads: prompts, ledger rows, audit events."""

from __future__ import annotations

from typing import Any, Literal

from espalier.core.types.spec import Spec


class Prompt(Spec):
    """One version of a prompt: Jinja templates that turn a case's variables into messages."""

    name: str
    version: int
    template: str  # the user turn
    system: str = ""
    variables: tuple[str, ...] = ()
    digest: str  # sha256 of the canonical JSON of (template, system)
    created_ms: int = 0
    created_by: str = "local"
    note: str = ""

    @property
    def ref(self) -> str:
        return f"prompt:{self.name}@v{self.version}"


class LedgerEntry(Spec):
    """One append-only row of money. Amounts are integer nano-USD (1e-9 USD); a debit is positive."""

    id: str
    request: str  # request id: idempotency key together with `kind`
    kind: Literal["reserve", "settle", "release", "usage", "credit"]
    key: str = ""  # API key id
    model: str = ""  # "model:support@v1" or a base
    adapter: str = ""  # artifact digest that answered
    prompt_tokens: int = 0
    completion_tokens: int = 0
    amount_nusd: int = 0
    latency_ms: int = 0
    at_ms: int
    detail: dict[str, Any] = {}


class AuditEvent(Spec):
    """One link of the audit chain: `hash` covers every other field, `previous` is the hash of the link before."""

    seq: int
    at_ms: int
    actor: str
    action: str  # "models.approve"
    subject: str  # "model:support@v1"
    detail: dict[str, Any] = {}
    previous: str
    hash: str
