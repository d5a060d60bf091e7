"""Every error a user can cause, as one small tree; each face maps `code`, `http_status` and `exit_code` once.

    EspalierError                (500, exit 1)   base; also what a bug inside us is reported as
    ├── InvalidInput             (400, exit 2)   a request, recipe or file is wrong; carries where and a hint
    │   └── UnsupportedModel     (400, exit 2)   a base we cannot load or adapt faithfully
    ├── Unauthenticated          (401, exit 9)   no key, or a key nobody knows
    ├── BudgetExceeded           (402, exit 8)   a request could cost more than its budget still holds
    ├── PermissionDenied         (403, exit 7)   the identity may not do this (four eyes, policy)
    ├── NotFound                 (404, exit 3)   a ref, run, file or key that does not exist
    ├── Conflict                 (409, exit 4)   a pointer moved, a version exists, a state does not allow it
    │   ├── GateFailed           (409, exit 5)   an evaluation gate or policy clause refused
    │   ├── DigestMismatch       (409, exit 4)   bytes, base, tokenizer or template are not the ones recorded
    │   └── LeaseLost            (409, exit 4)   another worker holds the job now; our result is discarded
    ├── RateLimited              (429, exit 8)   too many requests or tokens for now
    ├── MissingExtra             (501, exit 6)   an optional dependency is absent; the hint is its pip line
    ├── Unavailable              (503, exit 11)  stopping, overloaded or too slow; the same request may succeed later
    ├── StorageFull              (507, exit 10)  the disk is full; nothing half-written was kept
    └── Interrupted              (499, exit 130) the user stopped it; the hint says how to go on

An instance says what was wrong (`message`), where (`where`, as file:line:column for YAML), what to do next (`hint`),
and after how many seconds the same request has a chance (`retry_after_s`, 0 where waiting does not help or nobody
knows): every face that has a header for it sends it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EspalierError(Exception):
    """Base of every user-facing error; `code` is stable, the message is not."""

    code = "internal"
    http_status = 500
    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", where: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = where
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        head = f"{self.where}: {self.message}" if self.where else self.message
        return f"{head}\n  next: {self.hint}" if self.hint else head

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.hint, self.where, self.retry_after_s)

    def to_json(self) -> dict[str, str]:
        """The error as every face sends it; `from_json` is its inverse."""
        said = {"code": self.code, "message": self.message, "hint": self.hint, "where": self.where}
        return said | ({"retry_after_s": f"{self.retry_after_s:g}"} if self.retry_after_s else {})


class InvalidInput(EspalierError):
    code, http_status, exit_code = "invalid_input", 400, 2


class UnsupportedModel(InvalidInput):
    code = "unsupported_model"


class Unauthenticated(EspalierError):
    code, http_status, exit_code = "unauthenticated", 401, 9


class BudgetExceeded(EspalierError):
    code, http_status, exit_code = "budget_exceeded", 402, 8


class PermissionDenied(EspalierError):
    code, http_status, exit_code = "permission_denied", 403, 7


class NotFound(EspalierError):
    code, http_status, exit_code = "not_found", 404, 3


class Conflict(EspalierError):
    code, http_status, exit_code = "conflict", 409, 4


class GateFailed(Conflict):
    code, exit_code = "gate_failed", 5


class DigestMismatch(Conflict):
    code = "digest_mismatch"


class LeaseLost(Conflict):
    code = "lease_lost"


class RateLimited(EspalierError):
    code, http_status, exit_code = "rate_limited", 429, 8


class MissingExtra(EspalierError):
    code, http_status, exit_code = "missing_extra", 501, 6


class Unavailable(EspalierError):
    code, http_status, exit_code = "unavailable", 503, 11


class StorageFull(EspalierError):
    code, http_status, exit_code = "storage_full", 507, 10


class Interrupted(EspalierError):
    code, http_status, exit_code = "interrupted", 499, 130


def _rebuild(kind: type[EspalierError], message: str, hint: str, where: str, retry_after_s: float) -> EspalierError:
    return kind(message, hint=hint, where=where, retry_after_s=retry_after_s)


def kinds() -> dict[str, type[EspalierError]]:
    """Every class of the tree by its code."""
    found: dict[str, type[EspalierError]] = {}
    waiting: list[type[EspalierError]] = [EspalierError]
    while waiting:
        kind = waiting.pop()
        found[kind.code] = kind
        waiting.extend(kind.__subclasses__())
    return found


def from_json(body: dict[str, str]) -> EspalierError:
    """The error a face sent, as the class it was raised as; an unknown code becomes an EspalierError."""
    kind = kinds().get(body.get("code", ""), EspalierError)
    hint, where, wait = body.get("hint", ""), body.get("where", ""), body.get("retry_after_s", "0")
    return kind(body.get("message", ""), hint=hint, where=where, retry_after_s=float(wait))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt word: its nearest known one, or the list of what is allowed."""
    allowed = sorted(known)
    close = difflib.get_close_matches(word, allowed, 1, cutoff=0.6)
    if close:
        return f"did you mean `{close[0]}`?"
    return f"allowed: {', '.join(allowed)}" if allowed else ""
