"""API keys: made once, shown once, stored as a hash.

A secret is `esp_` and 43 base-62 characters (256 random bits). Its first 12 characters are the key's id: they stand
in lists, ledger rows and logs, and prove nothing. The store holds the sha256 of the whole; a fast hash is enough
for a random secret of this length (a slow one protects guessable passwords). A key never changes; that it was
revoked is where its pointer points.

Does not know: what a role allows (core/types/identity.py) or what is left of a budget (store/ledger.py).
"""

from __future__ import annotations

import fnmatch
import hashlib
import hmac
import re
import secrets
import string
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from espalier.core.errors import InvalidInput, NotFound, Unauthenticated
from espalier.core.ids import now_ms
from espalier.core.types import Principal, Spec
from espalier.core.types.identity import Role
from espalier.store.store import Store

_ALPHABET = string.digits + string.ascii_letters
_CHARS = 43  # 62 ** 43 > 2 ** 256
_ID_CHARS = 12
_SECRET = re.compile(rf"esp_[0-9A-Za-z]{{{_CHARS}}}")
_KIND, _LOAN = "key", "key-loan"
_OWNER = "owner"  # who pays for a loan to the workspace's owner
_ACTIVE, _REVOKED = "active", "revoked"


class ApiKey(Spec):
    """Who the bearer is and what the bearer may do. Holds no secret and no hash."""

    id: str
    name: str
    actor: str  # the identity it speaks for: two keys of one person are one pair of eyes
    role: Role = "user"
    budget_nusd: int | None = None  # None = no budget
    models: tuple[str, ...] = ()  # names or patterns such as `support*`; empty = all
    requests_per_minute: int | None = None  # None = the house's setting
    created_ms: int
    created_by: str
    expires_ms: int = 0  # 0 = never
    lent_by: str = ""  # of a loan: the key it draws on, or `owner`

    @property
    def principal(self) -> Principal:
        return Principal(actor=self.actor, role=self.role, key=self.id)

    @property
    def payer(self) -> str:
        """Whose limits and budget its requests count against, and whom usage rows name."""
        return self.lent_by or self.id

    @property
    def account(self) -> str:
        """The budget it draws on."""
        return f"key:{self.payer}"

    def allows(self, names: Iterable[str]) -> bool:
        """Whether a model known by any of `names` may be asked."""
        return not self.models or any(fnmatch.fnmatchcase(name, model) for name in names for model in self.models)


class KeyState(Spec):
    """A key as a list shows it."""

    key: ApiKey
    revoked: bool
    spent_nusd: int = 0
    left_nusd: int | None = None  # None = no budget


@dataclass(frozen=True, slots=True)
class NewKey:
    """The only moment a secret is seen; it stays out of `repr` and so out of logs."""

    key: ApiKey
    secret: str = field(repr=False)


class _Stored(Spec):
    key: ApiKey
    sha256: str


class KeyRing:
    """All keys of one store."""

    def __init__(self, store: Store, clock_ms: Callable[[], int] = now_ms) -> None:
        self._store = store
        self._clock_ms = clock_ms

    def create(
        self,
        name: str,
        *,
        actor: str = "",
        role: Role = "user",
        budget_nusd: int | None = None,
        models: Sequence[str] = (),
        requests_per_minute: int | None = None,
        lifetime_ms: int = 0,
        created_by: str = "local",
    ) -> NewKey:
        """A new key speaking for `actor` (empty: `name`), its budget opened. Raises InvalidInput."""
        if not name.strip() or len(name) > 64:
            raise InvalidInput(f"{name!r:.80} is not a name for a key", hint="use 1 to 64 characters")
        secret = _draw_secret()
        now = self._clock_ms()
        key = ApiKey(
            id=secret[:_ID_CHARS],
            name=name,
            actor=actor or name,
            role=role,
            budget_nusd=budget_nusd,
            models=tuple(models),
            requests_per_minute=requests_per_minute,
            created_ms=now,
            created_by=created_by,
            expires_ms=now + lifetime_ms if lifetime_ms else 0,
        )
        with self._store.transaction():
            self._keep(_KIND, key, secret)
            if budget_nusd is not None:
                self._store.ledger.set_limit(key.account, budget_nusd)
            self._store.audit.append(
                created_by, "keys.create", key.id, {"name": name, "role": role, "actor": key.actor}
            )
        return NewKey(key, secret)

    def lend(self, actor: str, lifetime_ms: int, *, lender: str = "") -> NewKey:
        """A short-lived key that gives its bearer nothing new: it may ask what key `lender` may, on that key's account.

        Without a lender it is the owner's own: no budget, every model. Lists do not show it. Raises NotFound.
        """
        now, secret = self._clock_ms(), _draw_secret()
        like = self._find(lender) if lender else ApiKey(id="", name="", actor=actor, created_ms=now, created_by=actor)
        changes = {"id": secret[:_ID_CHARS], "name": "loan", "role": "user", "lent_by": like.payer or _OWNER}
        times = {"created_ms": now, "expires_ms": now + lifetime_ms}
        key = like.model_copy(update={**changes, **times})
        with self._store.transaction():
            self._keep(_LOAN, key, secret)
        return NewKey(key, secret)

    def authenticate(self, secret: str) -> ApiKey:
        """The key whose secret this is. Raises Unauthenticated, never repeating what was sent."""
        if not _SECRET.fullmatch(secret):
            raise Unauthenticated(
                "no valid API key",
                hint="send `Authorization: Bearer esp_...`; the command line takes it from ESPALIER_API_KEY",
            )
        stored = self._read(secret[:_ID_CHARS])
        # A hash is compared even where there is no such id, so that timing tells nothing of which ids exist.
        matches = hmac.compare_digest(_hash(secret), stored.sha256 if stored else _hash(""))
        if stored is None or not matches:
            raise Unauthenticated("no valid API key", hint="make one with `espalier keys create --name NAME`")
        if any(map(self._is_revoked, {stored.key.id, stored.key.payer})):
            raise Unauthenticated(f"key {stored.key.id} was revoked", hint="ask for a new one")
        if stored.key.expires_ms and stored.key.expires_ms <= self._clock_ms():
            raise Unauthenticated(f"key {stored.key.id} has expired", hint="ask for a new one")
        return stored.key

    def get(self, id: str) -> ApiKey:
        """A key by its id, or by a name that only one live key has. Raises NotFound, InvalidInput."""
        return self._find(id)

    def is_revoked(self, key: ApiKey) -> bool:
        """Whether who pays for its requests was revoked. A loan that has ended does not count: its lender pays on."""
        return self._is_revoked(key.payer)

    def revoke(self, id: str, *, actor: str = "local") -> ApiKey:
        """End a key's life, by its id or by a name that only one live key has. Raises NotFound, InvalidInput."""
        key = self._find(id)
        with self._store.transaction():
            if self._is_revoked(key.id):
                return key
            self._store.records.set_pointer(_pointer(key.id), _REVOKED, expect=_ACTIVE, actor=actor)
            if not key.lent_by:
                self._store.audit.append(actor, "keys.revoke", key.id, {"name": key.name})
        return key

    def list(self, limit: int = 100) -> list[KeyState]:
        """The newest first, with what each has spent."""
        return [self.describe(stored.key) for stored in self._store.records.list(_KIND, _Stored, limit)]

    def describe(self, key: ApiKey) -> KeyState:
        """Whether it lives, and what it has spent."""
        if key.budget_nusd is None:
            return KeyState(key=key, revoked=self._is_revoked(key.id))
        balance = self._store.ledger.balance(key.account)
        return KeyState(
            key=key, revoked=self._is_revoked(key.id), spent_nusd=balance.spent_nusd, left_nusd=balance.left_nusd
        )  # fmt: skip

    def _find(self, id: str) -> ApiKey:
        stored = self._read(id)
        if stored is not None:
            return stored.key
        named = [state.key for state in self.list(1000) if state.key.name == id and not state.revoked]
        if len(named) > 1:
            raise InvalidInput(f"{len(named)} keys are called {id}", hint=f"name one by its id, e.g. {named[0].id}")
        if not named:
            raise NotFound(f"no key {id[:_ID_CHARS]}", hint="`espalier keys list` shows all")
        return named[0]

    def _keep(self, kind: str, key: ApiKey, secret: str) -> None:
        self._store.records.put(kind, key.id, _Stored(key=key, sha256=_hash(secret)))
        self._store.records.set_pointer(_pointer(key.id), _ACTIVE, expect=None, actor=key.created_by)

    def _read(self, id: str) -> _Stored | None:
        for kind in (_KIND, _LOAN):
            with suppress(NotFound):
                return self._store.records.get(kind, id, _Stored)
        return None

    def _is_revoked(self, id: str) -> bool:
        pointer = self._store.records.find_pointer(_pointer(id))
        return pointer is not None and pointer.target != _ACTIVE


def _pointer(id: str) -> str:
    """The pointer that says whether a key lives."""
    return f"key:{id}"


def _draw_secret() -> str:
    return "esp_" + "".join(secrets.choice(_ALPHABET) for _ in range(_CHARS))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
