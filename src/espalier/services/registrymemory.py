"""`RegistryMemory`: what was found by reading the whole registry, kept for as long as the registry is what it was.

Every change of it adds a link to the audit log in the change's own transaction, and links are added one after the
other: who reads the same newest link as before reads the same registry. That is one row by its key, however many
models there are. Knows no question.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from espalier.store.store import Store

Found = TypeVar("Found")


class RegistryMemory:
    """For few questions, each asked often. May be used from any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()  # guards the two below; not held while the registry is read
        self._link: tuple[int, str] = (-1, "")
        self._found: dict[Hashable, Any] = {}

    def recall(self, question: Hashable, find: Callable[[], Found]) -> Found:
        """What `find` returns, found anew only where the registry changed since. What it raises is not kept."""
        link = self._store.audit.head()  # before it is read: what is found is as new as this, or newer
        with self._lock:
            if link != self._link:
                self._link, self._found = link, {}
            if question in self._found:
                return cast("Found", self._found[question])
        found = find()
        with self._lock:
            if link == self._link:
                self._found[question] = found
        return found
