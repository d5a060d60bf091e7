"""`Principal`: who is asking, and how much they may do."""

from __future__ import annotations

from typing import Literal

from espalier.core.types.spec import Spec

Role = Literal["user", "approver", "admin"]  # each may do what the one before may
RANKS: dict[Role, int] = {"user": 0, "approver": 1, "admin": 2}


class Principal(Spec):
    """An identity proved by an API key, or the owner of the workspace at its own terminal."""

    actor: str
    role: Role = "user"
    key: str = ""  # id of the API key; empty = no key was needed

    def may(self, role: Role) -> bool:
        """Whether this identity's role is at least `role`."""
        return RANKS[self.role] >= RANKS[role]
