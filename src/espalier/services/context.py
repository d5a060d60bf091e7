"""`Context`: who asks, of which workspace, with which settings, and who is watching. Every operation gets one.

The store is opened on first use, so commands that need none (`init`, `doctor`, `config`) run without a workspace.
Knows no face and no operation.
"""

from __future__ import annotations

import getpass
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from espalier.core.config import LoadedConfig, load_config
from espalier.core.errors import NotFound, PermissionDenied
from espalier.core.events import Emit, ignore
from espalier.core.types import Principal
from espalier.core.types.identity import Role
from espalier.store.workspace import Workspace, find_workspace

if TYPE_CHECKING:
    from espalier.services.pool import ModelPool
    from espalier.store.store import Store


def _never() -> bool:
    return False


class _Opened:
    """What contexts of one workspace share: the store, opened once whichever thread asks first."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.store: Store | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """Immutable; `acting_as` and `working_on` give copies that share the opened store."""

    found: Workspace | NotFound  # the workspace, or why there is none
    config: LoadedConfig
    principal: Principal  # whoever can open the files may do everything; the HTTP face lowers it to the key's role
    emit: Emit = ignore
    run_id: str = ""  # inside a job: the run that stands for it
    stopped: Callable[[], bool] = _never  # inside a job: whether its work is no longer wanted
    start: Path = field(default_factory=Path.cwd)  # where the search for a workspace began
    hosting: ModelPool | None = None  # inside a server: the engines it answers with
    confined: bool = False  # asked over the network: a request's paths stay within the workspace
    _opened: _Opened = field(default_factory=_Opened, repr=False)

    @property
    def actor(self) -> str:
        return self.principal.actor

    @property
    def workspace(self) -> Workspace:
        """Raises NotFound, saying how to make one."""
        if isinstance(self.found, NotFound):
            raise self.found
        return self.found

    @property
    def store(self) -> Store:
        """The workspace's store, opened on first use. Raises NotFound outside a workspace."""
        workspace = self.workspace
        with self._opened.lock:
            if self._opened.store is None:
                from espalier.store.store import open_store

                self._opened.store = open_store(workspace, self.config.config.store)
            return self._opened.store

    def require(self, role: Role) -> None:
        """Raises PermissionDenied unless this identity's role is `role` or above."""
        if not self.principal.may(role):
            raise PermissionDenied(
                f"{self.actor} has the role {self.principal.role}, this needs {role}",
                hint=f"ask an admin for a key: `espalier keys create --role {role}`",
            )

    def place(self, path: str | Path) -> Path:
        """The file or folder that a request names; a relative path starts where the search for a workspace began.

        Raises PermissionDenied where the context is confined and the path, its links followed, leads out of the
        workspace's folder or into `.espalier/`, which the store alone reads and writes. What a recipe inside the
        workspace names is its author's word, and not looked at here.
        """
        place = self.start / path
        if self.confined:
            root, found = self.workspace.root.resolve(), place.resolve()
            if not found.is_relative_to(root) or found.is_relative_to(self.workspace.folder.resolve()):
                raise PermissionDenied(
                    f"{path} lies outside the workspace",
                    hint="name a path below the workspace's folder, or run the command on that machine",
                )
        return place

    def confine(self) -> Context:
        """The same context for who asks over the network."""
        return replace(self, confined=True)

    def acting_as(self, principal: Principal) -> Context:
        """The same workspace for another identity."""
        return replace(self, principal=principal)

    def working_on(self, run_id: str, emit: Emit, stopped: Callable[[], bool]) -> Context:
        """The same context inside a job: it reports to `emit`, and is to end soon once `stopped()` is true."""
        return replace(self, run_id=run_id, emit=emit, stopped=stopped)

    def close(self) -> None:
        """Close the store if it was opened; a later use opens it again."""
        with self._opened.lock:
            if self._opened.store is not None:
                self._opened.store.close()
                self._opened.store = None


def open_context(
    start: Path | None = None, overrides: Iterable[str] = (), actor: str = "", *, emit: Emit = ignore
) -> Context:
    """The context of the workspace around `start` (default: $ESPALIER_WORKSPACE, else the current folder).

    Outside any workspace the context still holds the settings; its `.workspace` and `.store` raise. `actor` wins over
    ESPALIER_ACTOR, which wins over the config file, which wins over the operating system's user name.
    Raises InvalidInput for a wrong setting, and NotFound when `start` is given and no folder.
    """
    if start is not None and not start.is_dir():
        raise NotFound(f"no folder {start}", hint="check --workspace")
    found: Workspace | NotFound
    try:
        found = find_workspace(start)
    except NotFound as error:
        found = error
    file = None if isinstance(found, NotFound) else found.config_file
    loaded = load_config(file, overrides=overrides)
    return Context(
        found=found,
        config=loaded,
        principal=Principal(actor=actor or loaded.config.actor or system_user(), role="admin"),
        emit=emit,
        start=(start or Path.cwd()).resolve(),
    )


def system_user() -> str:
    """The operating system's name for who runs this; `local` where it has none (a container's bare uid)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "local"
